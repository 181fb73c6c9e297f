"""Process of one runner pod: what a kubelet does with a container, step by step.

An init container, at most one, is run before it in the same way until it succeeds.

``step`` is called repeatedly. Each call compares the last observed pod with the process and takes the next step; a
failed write to the API server is retried by the next call.
"""

from __future__ import annotations

import http.client
import re
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from signal import SIGTERM

from tests.cluster.api import Api, Object, at, condition
from tests.cluster.child_processes import Child, minimal_environment
from tests.cluster.workspace import Workspace

ADDRESS = "test.corral.dev/address"
"""Annotation whose value KWOK (kwok-stages.yaml) copies to the pod's podIP."""

PORT = 8080
_PROBE_TIMEOUT = 1.0
_MAX_BACKOFF = 8.0
_WATCH_DELAY = 2.0
"""Seconds in which the watch returns a status that was written."""

_MAX_MESSAGE_BYTES = 4096


class PodProcess:
    """Used by one thread, which also starts the process; other threads may read ``child`` and ``address``."""

    def __init__(self, pod: Object, *, api: Api, workspace: Workspace, folder: Path) -> None:
        metadata = at(pod, "metadata")
        self.namespace, self.name = str(at(metadata, "namespace")), str(at(metadata, "name"))
        self.model = str(at(metadata, "labels", "corral.dev/model"))
        self.address = workspace.take_address()
        self.child: Child | None = None
        self.crashes = 0
        self.pod = pod
        self.gone = False
        self.once = at(pod, "spec", "restartPolicy") == "OnFailure"
        self.completed = False
        self._initialized = at(pod, "spec", "initContainers", 0) is None
        self._api, self._workspace = api, workspace
        self._log = folder / f"{self.namespace}.{self.name}.log"
        self._message = folder / f"{self.namespace}.{self.name}.message"
        self._start_at = 0.0
        self._terminate_at: float | None = None
        self._kill_at = 0.0
        self._reported: Object | None = None
        self._reported_at = 0.0

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"

    def step(self, now: float) -> bool:
        """Take the next step; return True when pod and process are gone. Raises ApiError or OSError: call again."""
        if self.gone or at(self.pod, "metadata", "deletionTimestamp"):
            return self._end(now)
        if self.completed:
            return False
        if self.child is None:
            if now >= self._start_at:
                self._start()
        elif self.child.alive:
            if not self._initialized or at(self._container, "ports") is not None:
                self._publish_address()
            self._report(ready=self._probe(), state={"running": {}})
        elif not self._initialized and self.child.exit_status() == 0:
            self._end_initialization()
        elif self.once and self.child.exit_status() == 0:
            self._complete()
        else:
            self._crashed(self.child, now)
        return False

    def abandon(self) -> None:
        """End the process and release the address."""
        if self.child is not None:
            self.child.stop(grace=2.0)
        self._workspace.release_address(self.address)

    @property
    def _container(self) -> Object:
        """The container that runs, or that is started next."""
        found = at(self.pod, "spec", "containers" if self._initialized else "initContainers", 0)
        assert isinstance(found, dict)
        return found

    def _end_initialization(self) -> None:
        """Report the success of the init container, once the pod has its address, and start the container next."""
        self._publish_address()
        if at(self.pod, "status", "podIP"):
            message = self._message.read_text()[:_MAX_MESSAGE_BYTES]
            ended: Object = {"exitCode": 0, "reason": "Completed", "message": message, "finishedAt": _now()}
            self._report(ready=False, state={"terminated": ended})
            self._initialized, self._reported, self.crashes, self.child = True, None, 0, None

    def _start(self) -> None:
        self._message.unlink(missing_ok=True)
        environment = minimal_environment(
            extra={
                **container_environment(self.pod, self._container, address=self.address),
                "CORRAL_HOST": self.address,
                "CORRAL_PORT": str(PORT),
                "CORRAL_TERMINATION_LOG": str(self._message),
                **mounted_store(self.pod, self._workspace.folder),
            }
        )
        command = [sys.executable if word == "python" else word for word in container_command(self._container)]
        kind = "runner" if self._initialized else "init container"
        self.child = Child(f"{kind} {self.namespace}/{self.name}", command, log=self._log, environment=environment)

    def _publish_address(self) -> None:
        """Set the address annotation for KWOK."""
        if at(self.pod, "metadata", "annotations", ADDRESS) != self.address:
            self._api.patch(self.path, {"metadata": {"annotations": {ADDRESS: self.address}}})

    def _probe(self) -> bool:
        """Run the container's readiness probe; without one a running container is ready, but no init container."""
        if not self._initialized:
            return False
        path = at(self._container, "readinessProbe", "httpGet", "path")
        if not isinstance(path, str):
            return True
        connection = http.client.HTTPConnection(self.address, PORT, timeout=_PROBE_TIMEOUT)
        try:
            connection.request("GET", path)
            return connection.getresponse().status < 400
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _complete(self) -> None:
        """Report the success of a pod that runs once, with its termination message."""
        message = self._message.read_text()[:_MAX_MESSAGE_BYTES]
        complete(self._api, self.pod, message)
        self.completed = True

    def _crashed(self, child: Child, now: float) -> None:
        message = self._message.read_text(errors="replace")[:_MAX_MESSAGE_BYTES] if self._message.exists() else ""
        status = child.exit_status()
        ended: Object = {"exitCode": status if status is not None and status >= 0 else 128 - (status or 0)}
        ended |= {"reason": "Error", "message": message, "finishedAt": _now()}
        waiting: Object = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off restarting"}}
        self._report(ready=False, state=waiting, last={"terminated": ended}, restarts=self.crashes + 1)
        self.crashes += 1
        self._start_at = now + min(2.0 ** (self.crashes - 1), _MAX_BACKOFF)
        self.child = None

    def _end(self, now: float) -> bool:
        """Run preStop, SIGTERM and SIGKILL, then delete the pod object."""
        if self.child is not None and self.child.alive:
            if self._terminate_at is None:
                self._schedule_end(now)
            if self._terminate_at is not None and now >= self._terminate_at:
                self.child.signal(SIGTERM)
                self._terminate_at = float("inf")
            if now >= self._kill_at:
                self.child.kill()
            elif not self.gone:
                self._report(ready=self._probe(), state={"running": {}})
            return False
        if not self.gone:
            self._api.delete(self.path, gracePeriodSeconds=0)
        self.abandon()
        return True

    def _schedule_end(self, now: float) -> None:
        grace = at(self.pod, "metadata", "deletionGracePeriodSeconds")
        sleep = at(self.pod, "spec", "containers", 0, "lifecycle", "preStop", "sleep", "seconds")
        self._terminate_at = now if self.gone else now + _number(sleep)
        self._kill_at = now + (2.0 if self.gone else _number(grace))

    def _report(self, *, ready: bool, state: Object, last: Object | None = None, restarts: int | None = None) -> None:
        """Write the pod's status if it changed, from when KWOK has set the pod as running.

        The node controller writes it too, when the lease of a node expires; so the observed status is compared as well.
        """
        if not at(self.pod, "status", "podIP") and not self.once:
            return
        of_container = {
            "name": at(self._container, "name"),
            "image": at(self._container, "image"),
            "imageID": "",
            "ready": ready,
            "started": "running" in state,
            "restartCount": self.crashes if restarts is None else restarts,
            "state": state,
            "lastState": last or at(self._reported, "lastState") or {},
        }
        word = "True" if ready else "False"
        settled = time.monotonic() > self._reported_at + _WATCH_DELAY
        if of_container == self._reported and (condition(self.pod, "Ready").get("status") == word or not settled):
            return
        conditions = [
            {"type": kind, "status": word, "lastTransitionTime": _now()} for kind in ("Ready", "ContainersReady")
        ]
        kind = "containerStatuses" if self._initialized else "initContainerStatuses"
        status: Object = {"conditions": conditions, kind: [of_container]}
        body: Object = {"status": status | ({"phase": "Running"} if self.once else {})}
        content = "application/strategic-merge-patch+json"
        self._api.request("PATCH", f"{self.path}/status", body=body, content=content)
        self._reported, self._reported_at = of_container, time.monotonic()


def complete(api: Api, pod: Object, message: str) -> None:
    """Report that the pod has succeeded, with this termination message."""
    container = at(pod, "spec", "containers", 0)
    ended: Object = {"exitCode": 0, "reason": "Completed", "message": message, "finishedAt": _now()}
    done: Object = {"name": at(container, "name"), "image": at(container, "image"), "imageID": "", "restartCount": 0}
    done |= {"ready": False, "state": {"terminated": ended}}
    path = f"/api/v1/namespaces/{at(pod, 'metadata', 'namespace')}/pods/{at(pod, 'metadata', 'name')}"
    body: Object = {"status": {"phase": "Succeeded", "containerStatuses": [done]}}
    api.request("PATCH", f"{path}/status", body=body, content="application/strategic-merge-patch+json")


def container_command(container: Object) -> list[str]:
    """Return the command and arguments of the container."""
    words = [at(container, "command"), at(container, "args")]
    command = [str(word) for part in words if isinstance(part, list) for word in part]
    return command or ["python", "-m", "corral_server.runner"]


def container_environment(pod: Object, container: Object, *, address: str) -> dict[str, str]:
    """Return the environment of a container of the pod, with field references resolved."""
    fields: dict[str, Callable[[], object]] = {
        "metadata.name": lambda: at(pod, "metadata", "name"),
        "metadata.namespace": lambda: at(pod, "metadata", "namespace"),
        "metadata.uid": lambda: at(pod, "metadata", "uid"),
        "spec.nodeName": lambda: at(pod, "spec", "nodeName"),
        "status.podIP": lambda: address,
    }
    listed = at(container, "env")
    environment: dict[str, str] = {}
    for item in listed if isinstance(listed, list) else []:
        field = at(item, "valueFrom", "fieldRef", "fieldPath")
        value = str(fields[field]()) if isinstance(field, str) else expand(str(item.get("value", "")), environment)
        environment[item["name"]] = value
    return environment


def mounted_store(pod: Object, folder: Path) -> dict[str, str]:
    """Return the variable with the folder that stands for the volume with pulled weights, none without one."""
    volumes = at(pod, "spec", "volumes")
    stores = [item for item in volumes if at(item, "name") == "store"] if isinstance(volumes, list) else []
    if not stores:
        return {}
    volume = at(stores[0], "persistentVolumeClaim", "claimName") or at(pod, "metadata", "uid")
    return {"CORRAL_STORE": str(volume_folder(folder, at(pod, "metadata", "namespace"), volume))}


def volume_folder(folder: Path, namespace: object, volume: object) -> Path:
    """Return the folder of the workspace ``folder`` that stands for a volume: of a claim by its name, or of a pod by
    its uid. It is created.
    """
    made = folder / "volumes of processes" / f"{namespace}.{volume}"
    made.mkdir(parents=True, exist_ok=True)
    return made


def expand(text: str, environment: Mapping[str, str]) -> str:
    """Expand ``$(NAME)`` to the value of an earlier variable and ``$$`` to ``$``, as the kubelet does."""

    def one(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else environment.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", one, text)


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
