"""Stands in for the kubelet: runs a real runner process in the place of each simulated runner pod.

A pod takes part when it carries the annotation ``test.corral.dev/runner`` (a Model's ``spec.pod.annotations``). For it
this does what a kubelet would, and nothing else is simulated:

* scheduled: the process ``python -m corral_server.runner`` starts with the environment of the pod's container, bound
  to an address of its own, which KWOK (kwok-stages.yaml) makes the pod's;
* the pod is ready while its readiness probe passes;
* the process ended by itself: its exit code and termination message go into the pod's status and it is started again,
  after a second, then two, and so on;
* the pod is deleted: the container's preStop sleep, SIGTERM, SIGKILL after the grace period, and when the process has
  ended the pod object goes.

A pod that reads the header of a Model's weights (an inspector) without the annotation has no weights to read: it
succeeds at once, with the facts of a small model.

One thread watches, one acts; the second starts every process, and so they end with it.
"""

from __future__ import annotations

import queue
import threading
import time
from contextlib import suppress

from tests.cluster.api import Api, ApiError, Gone, Object, at
from tests.cluster.children import Child
from tests.cluster.inspection import is_simulated_inspector, made_up_facts
from tests.cluster.pod_process import PodProcess, complete
from tests.cluster.workspace import Workspace

ANNOTATION = "test.corral.dev/runner"
_TICK = 0.1
_PODS = "/api/v1/pods"


class StandIn:
    """Runs from construction to ``stop``."""

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
            threading.Thread(target=self._watch, name="stand-in watch", daemon=True),
            threading.Thread(target=self._act, name="stand-in", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def pods(self, namespace: str, model: str) -> list[PodProcess]:
        """The runners of a Model whose process runs."""
        runners = [pod for pod in list(self._pods.values()) if not pod.once]
        of_model = [pod for pod in runners if (pod.namespace, pod.model) == (namespace, model)]
        return [pod for pod in of_model if pod.child is not None and pod.child.alive]

    def children(self, namespace: str) -> list[Child]:
        """The last process of each of a namespace's pods so far, also of those that are gone."""
        running = [pod.child for pod in list(self._pods.values()) if not pod.once]
        every = [*self._ended, *(child for child in running if child is not None)]
        return list({child.name: child for child in every if child.name.startswith(f"runner {namespace}/")}.values())

    def stop(self) -> None:
        """Ends every process. The watching thread may linger in its read; it is a daemon and does nothing more."""
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
        """Puts every pod as it is now, and the end of those that are no more; returns the list's version."""
        listing = self._api.get(_PODS)
        pods = listing["items"]
        assert isinstance(pods, list)
        self._events.put(("LISTED", {"pods": {str(at(pod, "metadata", "uid")): pod for pod in pods}}))
        return str(at(listing, "metadata", "resourceVersion"))

    def _act(self) -> None:
        while not self._stopping.is_set():
            with suppress(queue.Empty):
                self._observe(*self._events.get(timeout=_TICK))
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
            with suppress(OSError, ApiError):  # it is seen again with the next change, and in the next list
                complete(self._api, pod, made_up_facts(pod))
        elif kind != "DELETED" and self._is_ours(pod):
            self._pods[uid] = PodProcess(pod, api=self._api, workspace=self._workspace, folder=self._folder)

    @staticmethod
    def _is_ours(pod: Object) -> bool:
        scheduled = at(pod, "spec", "nodeName") is not None
        return scheduled and at(pod, "metadata", "annotations", ANNOTATION) is not None

    def _step_all(self, now: float) -> None:
        for uid, pod in list(self._pods.items()):
            before, over = pod.child, False
            with suppress(OSError, ApiError):  # the next step tries it again
                over = pod.step(now)
            if before is not None and not pod.once and (over or pod.child is not before):
                self._ended.append(before)
            if over:
                del self._pods[uid]
