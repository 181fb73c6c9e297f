"""One runner pod and the process that runs in its place; what a kubelet does with a container, step by step.

``step`` is called again and again. Each call compares the pod as last observed with the process and does the next
thing; what could not be written to the API server is tried again by the next call, so an outage changes nothing.
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
from tests.cluster.children import Child, minimal_environment
from tests.cluster.workspace import Workspace

ADDRESS = "test.corral.dev/address"
"""The annotation that KWOK (kwok-stages.yaml) copies into the pod's podIP."""

PORT = 8080
_PROBE_TIMEOUT = 1.0
_MAX_BACKOFF = 8.0
_SETTLING = 2.0
"""Seconds in which a status that was written comes back through the watch."""

_MESSAGE_BYTES = 4096


class PodProcess:
    """Owned by one thread, which also starts the process; ``child`` and ``address`` may be read by others."""

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
        """Does the next thing; True when all is over. Raises ApiError and OSError; then call again."""
        if self.gone or at(self.pod, "metadata", "deletionTimestamp"):
            return self._end(now)
        if self.completed:
            return False
        if self.child is None:
            if now >= self._start_at:
                self._start()
        elif self.child.alive:
            if not self.once:
                self._announce()
            self._report(ready=self._probe(), state={"running": {}})
        elif self.once and self.child.exit_status() == 0:
            self._complete()
        else:
            self._crashed(self.child, now)
        return False

    def abandon(self) -> None:
        """Ends the process and gives the address back, whatever becomes of the pod."""
        if self.child is not None:
            self.child.stop(grace=2.0)
        self._workspace.give_address_back(self.address)

    def _start(self) -> None:
        self._message.unlink(missing_ok=True)
        environment = minimal_environment(
            extra={
                **container_environment(self.pod, self.address),
                "CORRAL_HOST": self.address,
                "CORRAL_PORT": str(PORT),
                "CORRAL_TERMINATION_LOG": str(self._message),
            }
        )
        command = [sys.executable if word == "python" else word for word in container_command(self.pod)]
        self.child = Child(f"runner {self.namespace}/{self.name}", command, log=self._log, environment=environment)

    def _announce(self) -> None:
        """Tells KWOK the address, until the pod has it."""
        if at(self.pod, "metadata", "annotations", ADDRESS) != self.address:
            self._api.patch(self.path, {"metadata": {"annotations": {ADDRESS: self.address}}})

    def _probe(self) -> bool:
        """The container's readiness probe; without one a container that runs is ready."""
        path = at(self.pod, "spec", "containers", 0, "readinessProbe", "httpGet", "path")
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
        """A pod that was to run once has: its last words are its status."""
        message = self._message.read_text()[:_MESSAGE_BYTES]
        complete(self._api, self.pod, message)
        self.completed = True

    def _crashed(self, child: Child, now: float) -> None:
        message = self._message.read_text(errors="replace")[:_MESSAGE_BYTES] if self._message.exists() else ""
        status = child.exit_status()
        ended: Object = {"exitCode": status if status is not None and status >= 0 else 128 - (status or 0)}
        ended |= {"reason": "Error", "message": message, "finishedAt": _now()}
        waiting: Object = {"waiting": {"reason": "CrashLoopBackOff", "message": "restarted after a while"}}
        self._report(ready=False, state=waiting, last={"terminated": ended}, restarts=self.crashes + 1)
        self.crashes += 1
        self._start_at = now + min(2.0 ** (self.crashes - 1), _MAX_BACKOFF)
        self.child = None

    def _end(self, now: float) -> bool:
        """preStop, SIGTERM, SIGKILL; then the pod object is deleted."""
        if self.child is not None and self.child.alive:
            if self._terminate_at is None:
                self._plan_end(now)
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

    def _plan_end(self, now: float) -> None:
        grace = at(self.pod, "metadata", "deletionGracePeriodSeconds")
        sleep = at(self.pod, "spec", "containers", 0, "lifecycle", "preStop", "sleep", "seconds")
        self._terminate_at = now if self.gone else now + _number(sleep)
        self._kill_at = now + (2.0 if self.gone else _number(grace))

    def _report(self, *, ready: bool, state: Object, last: Object | None = None, restarts: int | None = None) -> None:
        """Writes the pod's status, once KWOK has made the pod run, when it is another than what was written last.

        Others write it too (a node whose lease ran out takes its pods' readiness with it), so what is there counts.
        """
        if not at(self.pod, "status", "podIP") and not self.once:
            return
        container = at(self.pod, "spec", "containers", 0)
        of_container = {
            "name": at(container, "name"),
            "image": at(container, "image"),
            "imageID": "",
            "ready": ready,
            "started": "running" in state,
            "restartCount": self.crashes if restarts is None else restarts,
            "state": state,
            "lastState": last or at(self._reported, "lastState") or {},
        }
        word = "True" if ready else "False"
        settled = time.monotonic() > self._reported_at + _SETTLING
        if of_container == self._reported and (condition(self.pod, "Ready").get("status") == word or not settled):
            return
        conditions = [
            {"type": kind, "status": word, "lastTransitionTime": _now()} for kind in ("Ready", "ContainersReady")
        ]
        status: Object = {"conditions": conditions, "containerStatuses": [of_container]}
        body: Object = {"status": status | ({"phase": "Running"} if self.once else {})}
        content = "application/strategic-merge-patch+json"
        self._api.request("PATCH", f"{self.path}/status", body=body, content=content)
        self._reported, self._reported_at = of_container, time.monotonic()


def complete(api: Api, pod: Object, message: str) -> None:
    """Says that the pod has done what it was for, with these last words."""
    container = at(pod, "spec", "containers", 0)
    ended: Object = {"exitCode": 0, "reason": "Completed", "message": message, "finishedAt": _now()}
    done: Object = {"name": at(container, "name"), "image": at(container, "image"), "imageID": "", "restartCount": 0}
    done |= {"ready": False, "state": {"terminated": ended}}
    path = f"/api/v1/namespaces/{at(pod, 'metadata', 'namespace')}/pods/{at(pod, 'metadata', 'name')}"
    body: Object = {"status": {"phase": "Succeeded", "containerStatuses": [done]}}
    api.request("PATCH", f"{path}/status", body=body, content="application/strategic-merge-patch+json")


def container_command(pod: Object) -> list[str]:
    """What the container runs: its command and arguments."""
    container = at(pod, "spec", "containers", 0)
    words = [at(container, "command"), at(container, "args")]
    command = [str(word) for part in words if isinstance(part, list) for word in part]
    return command or ["python", "-m", "corral_server.runner"]


def container_environment(pod: Object, address: str) -> dict[str, str]:
    """The environment of the pod's one container, fields of the pod filled in."""
    fields: dict[str, Callable[[], object]] = {
        "metadata.name": lambda: at(pod, "metadata", "name"),
        "metadata.namespace": lambda: at(pod, "metadata", "namespace"),
        "metadata.uid": lambda: at(pod, "metadata", "uid"),
        "spec.nodeName": lambda: at(pod, "spec", "nodeName"),
        "status.podIP": lambda: address,
    }
    listed = at(pod, "spec", "containers", 0, "env")
    environment: dict[str, str] = {}
    for item in listed if isinstance(listed, list) else []:
        field = at(item, "valueFrom", "fieldRef", "fieldPath")
        value = str(fields[field]()) if isinstance(field, str) else expand(str(item.get("value", "")), environment)
        environment[item["name"]] = value
    return environment


def expand(text: str, environment: Mapping[str, str]) -> str:
    """``$(NAME)`` becomes the value of an earlier variable and ``$$`` a plain ``$``, as the kubelet has it."""

    def one(match: re.Match[str]) -> str:
        return "$" if match[0] == "$$" else environment.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", one, text)


def _now() -> str:
    return datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
