"""Fake kubelet: runs a real runner process for each simulated runner pod.

It manages the pods with the annotation ``test.corral.dev/runner`` (a Model's ``spec.pod.annotations``) as a kubelet
does:

- A scheduled pod: the process ``python -m corral_server.runner`` starts with the environment of the pod's container. It
  listens on its own address, which KWOK (kwok-stages.yaml) sets as the pod's. An init container runs before it.
- The pod is ready while its readiness probe passes.
- A process that ends: its exit code and termination message are written to the pod's status, and it is restarted after
  one second, then two, and so on.
- A deleted pod: the container's preStop sleep, SIGTERM, SIGKILL after the grace period; then the pod object is deleted.

An inspector pod without the annotation has no weights to read: it succeeds at once with sample metadata.

One thread watches, the other acts. The second starts all processes, so they end with it.
"""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress

from tests.cluster.api import Api, ApiError, Gone, Object, at
from tests.cluster.child_processes import Child
from tests.cluster.pod_process import PodProcess, complete
from tests.cluster.sample_metadata import is_simulated_inspector, sample_termination_message
from tests.cluster.workspace import Workspace

ANNOTATION = "test.corral.dev/runner"
_STEP_INTERVAL = 0.1
_PODS = "/api/v1/pods"


class FakeKubelet:
    """Runs from construction until ``stop``."""

    def __init__(self, api: Api, workspace: Workspace) -> None:
        self._api = api
        self._workspace = workspace
        self._folder = workspace.folder / "runners"
        self._folder.mkdir()
        self._events: queue.Queue[tuple[str, Object]] = queue.Queue()
        self._stopping = threading.Event()
        self._pods: dict[str, PodProcess] = {}
        self._ended: list[Child] = []
        self._threads = [
            threading.Thread(target=self._watch, name="fake kubelet watch", daemon=True),
            threading.Thread(target=self._act, name="fake kubelet", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def pods(self, namespace: str, model: str) -> list[PodProcess]:
        """Return the runner pods of a Model whose process runs."""
        runners = [pod for pod in list(self._pods.values()) if not pod.once]
        of_model = [pod for pod in runners if (pod.namespace, pod.model) == (namespace, model)]
        return [pod for pod in of_model if pod.child is not None and pod.child.alive]

    def children(self, namespace: str) -> list[Child]:
        """Return the last process of each runner pod of a namespace, deleted pods included."""
        running = [pod.child for pod in list(self._pods.values()) if not pod.once]
        every = [*self._ended, *(child for child in running if child is not None)]
        return list({child.name: child for child in every if child.name.startswith(f"runner {namespace}/")}.values())

    def stop(self) -> None:
        """End every process. The watching thread, a daemon, may stay in its read; it does nothing more."""
        self._stopping.set()
        self._threads[1].join(60)

    def _watch(self) -> None:
        while not self._stopping.is_set():
            with suppress(OSError, ApiError, Gone):
                version = self._list()
                while not self._stopping.is_set():
                    for kind, pod in self._api.watch(_PODS, version):
                        version = str(at(pod, "metadata", "resourceVersion"))
                        self._events.put((kind, pod))
            self._stopping.wait(0.2)

    def _list(self) -> str:
        """List all pods for the acting thread; return the version of the list."""
        listing = self._api.get(_PODS)
        pods = listing["items"]
        assert isinstance(pods, list)
        self._events.put(("LISTED", {"pods": {str(at(pod, "metadata", "uid")): pod for pod in pods}}))
        return str(at(listing, "metadata", "resourceVersion"))

    def _act(self) -> None:
        while not self._stopping.is_set():
            with suppress(queue.Empty):
                self._observe(*self._events.get(timeout=_STEP_INTERVAL))
                while True:
                    self._observe(*self._events.get_nowait())
            self._step_all(time.monotonic())
        for pod in self._pods.values():
            pod.abandon()

    def _observe(self, kind: str, pod: Object) -> None:
        if kind == "LISTED":
            listed = pod["pods"]
            assert isinstance(listed, dict)
            for uid in set(self._pods) - set(listed):
                self._pods[uid].gone = True
            for each in listed.values():
                self._observe("MODIFIED", each)
            return
        uid = str(at(pod, "metadata", "uid"))
        known = self._pods.get(uid)
        if known is not None:
            known.pod, known.gone = pod, kind == "DELETED"
        elif kind != "DELETED" and is_simulated_inspector(pod):
            with suppress(OSError, ApiError):  # its next change and the next list are another chance
                complete(self._api, pod, sample_termination_message(pod))
        elif kind != "DELETED" and self._managed(pod):
            self._pods[uid] = PodProcess(pod, api=self._api, workspace=self._workspace, folder=self._folder)

    @staticmethod
    def _managed(pod: Object) -> bool:
        scheduled = at(pod, "spec", "nodeName") is not None
        return scheduled and at(pod, "metadata", "annotations", ANNOTATION) is not None

    def _step_all(self, now: float) -> None:
        for uid, pod in list(self._pods.items()):
            before, over = pod.child, False
            with suppress(OSError, ApiError):  # the next step retries
                over = pod.step(now)
            if before is not None and not pod.once and (over or pod.child is not before):
                self._ended.append(before)
            if over:
                del self._pods[uid]
