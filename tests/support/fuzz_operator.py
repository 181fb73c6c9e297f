"""Fuzzer of operator, gateway and local mode by input that is not from clients, in one process.

A case is one object of the API server (a Model, a pod, an inspector's pod, a Deployment, a Service, a node, an
EndpointSlice), one line of a runner's ``/activity``, or the deletion of an object. Objects travel as JSON text through
the decoder of the client and through real list-watches, into a real cluster state, controller, applier and status
writer over an API server in memory, and into a real directory of a gateway.

Invariants after every case:

- No task has ended, and no exception has reached the event loop.
- The gateway finds the good Model with its endpoint. From time to time the good Model is changed: the operator
  reconciles it and writes its status.

An error that is isolated to its Model or object breaks no invariant. ``internal_errors`` and ``unreadable`` count them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import cast

from corral_core.base.errors import InvalidModel
from corral_core.base.json_fields import JsonObject, get_object, get_value
from corral_core.contracts.runner_status import parse_runner_status
from corral_core.model.resource import load_models
from corral_core.planning.snapshot import Policy
from corral_kube.bounded_json import decode
from corral_kube.client import ObjectList, Transform, identity
from corral_kube.list_watch import ListWatch
from corral_kube.unreadable import UnreadableObjects
from corral_operator.config import LeaseConfig, RunnerDefaults
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.feed import StateFeed
from corral_operator.observe.objects import trim_node, trim_other_pod
from corral_operator.process.other_installations import OtherInstallations
from corral_operator.reconcile.applier import Applier
from corral_operator.reconcile.controller import Controller
from corral_operator.reconcile.inspection import Inspection
from corral_operator.reconcile.metrics import PlanMetrics
from corral_operator.reconcile.planning.load_choice import choose_load
from corral_operator.reconcile.pulling.pulls import Pulls
from corral_operator.reconcile.rollouts import Rollouts
from corral_operator.reconcile.work_queue import WorkQueue
from corral_operator.report.event_recorder import EventRecorder
from corral_operator.report.status_writer import StatusWriter
from corral_server.gateway.directory.kubernetes import ApiClient, KubeDirectory, KubeSettings
from tests.gateway.kube_objects import endpoint, endpoint_slice
from tests.operator import pull_samples, samples
from tests.operator.clock import ManualClock
from tests.operator.fake_kube import FakeKube
from tests.support.fuzz_objects import Corpus, Json

GOOD_EVERY = 25
"""Cases between two changes of the good Model."""

YAML_SHARE = 0.1
"""Share of the Models that local mode reads too, as a file: YAML takes longer than everything else."""

MAX_LOOP_TURNS = 5_000
LONGEST_WAIT = 30.0
"""Seconds."""
HOSTILE_MODELS = 6
_GOOD = api_paths.models("lab", "good")
_TRIMS: dict[Kind, Transform] = {Kind.NODES: trim_node, Kind.OTHER_PODS: trim_other_pod}
_NAMES = {Kind.PODS: "pod", Kind.DEPLOYMENTS: "deployment", Kind.SERVICES: "service", Kind.NODES: "node"}


class InvariantViolated(AssertionError):
    """An invariant of the module docstring is violated."""


class _Watches:
    """API server whose lists are empty and whose watches deliver what ``send`` encodes."""

    def __init__(self) -> None:
        self.queues: dict[str, list[asyncio.Queue[tuple[str, bytes]]]] = {}

    async def list(self, path: str, *, selector: str = "", fields: str = "", trim: Transform = identity) -> ObjectList:
        return ObjectList([], "1")

    async def watch(
        self, path: str, version: str, *, selector: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[str, JsonObject]]:
        queue: asyncio.Queue[tuple[str, bytes]] = asyncio.Queue()
        self.queues.setdefault(path, []).append(queue)
        while True:
            kind, payload = await queue.get()
            value, _ = decode(payload)
            yield kind, value if isinstance(value, dict) else {}

    async def current_version(self, path: str, *, fields: str = "") -> str:
        return "1"

    async def apply(self, path: str, body: JsonObject, *, manager: str) -> JsonObject:
        return body

    def send(self, path: str, event: str, item: JsonObject) -> None:
        payload = json.dumps(item).encode("utf-8", "surrogatepass")
        for queue in self.queues.get(path, ()):
            queue.put_nowait((event, payload))

    @property
    def count(self) -> int:
        return sum(map(len, self.queues.values()))

    @property
    def idle(self) -> bool:
        return all(queue.empty() for queues in self.queues.values() for queue in queues)


class ObjectFuzzer:
    """``run(number)`` runs one case; call it on an event loop, between ``start`` and ``close``."""

    def __init__(self, corpus: Corpus, seed: int) -> None:
        self._corpus = corpus
        self._seed = seed
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.clock = ManualClock()
        self.kube = FakeKube()
        self.unreadable = UnreadableObjects()
        self.state = ClusterState(clock=self.clock, unreadable=self.unreadable)
        self.metrics = PlanMetrics()
        self._watches = _Watches()
        self._tasks: list[asyncio.Task[None]] = []
        self._generation = 1

    @property
    def internal_errors(self) -> int:
        """Reconciliations that failed with an error other than one of the API server's."""
        return sum(count for (_, kind), count in self.metrics.errors.items() if kind == "internal")

    async def start(self) -> None:
        self._queue = WorkQueue()
        self._controller = self._make_controller()
        self._feed = StateFeed(self.state, self._controller.state_changed)
        self.directory = KubeDirectory(
            cast(ApiClient, self._watches), KubeSettings(), gateway_id="g", unreadable=self.unreadable
        )
        asyncio.get_running_loop().set_exception_handler(lambda _, context: self.problems.append(repr(context)))
        self._levels = [(logging.getLogger(name), logging.getLogger(name).level) for name in ("corral",)]
        logging.getLogger("corral").setLevel(logging.CRITICAL)
        runs = [self.directory.run(), *(self._list_watch(kind).run() for kind in Kind)]
        runs += [self._controller.run_worker() for _ in range(3)]
        self._tasks = [asyncio.create_task(run) for run in runs]
        await self._until(lambda: self._watches.count == len(Kind) + 2, "all watches")
        self._change_good()
        await self._until(self._good_is_served, "the good Model")

    async def close(self) -> None:
        for logger, level in self._levels:
            logger.setLevel(level)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._queue.close()
        await self.directory.close()

    async def run(self, number: int) -> None:
        """Run one case. Raises InvariantViolated."""
        rng = random.Random(f"{self._seed} {number}")
        self.clock.now += rng.choice((0.0, 0.01, 1.0, 400.0))
        rng.choice(self._ACTS)(self, rng)
        await self._until(self._idle, "an idle queue")
        if number % GOOD_EVERY == 0:
            self._change_good()
            await self._until(self._good_is_served, "the good Model's new generation")
        found = self.directory.get("lab/good")
        if found is None or not found.endpoints:
            raise InvariantViolated("the gateway does not serve the good Model")
        self._check()

    def _idle(self) -> bool:
        """Whether all events are processed: a status of the version before must not replace that of a changed Model."""
        return self._watches.idle and not self._queue.depth and not self._queue._processing

    def _check(self) -> None:
        ended = [repr(task) for task in self._tasks if task.done()]
        if ended or self.problems:
            raise InvariantViolated("; ".join([*ended, *self.problems]))

    def _make_controller(self) -> Controller:
        defaults = RunnerDefaults()
        inspection = Inspection(self.kube, self.state, defaults, limit=4, requeue=self._queue.add_after)
        pulls = Pulls(self.kube, self.state, defaults, requeue=self._queue.add_after)
        rollouts = Rollouts(self.state, timeout=300.0, requeue=self._queue.add_after)
        recorder = EventRecorder(self.kube, clock=self.clock)
        return Controller(
            self.state,
            self._queue,
            policy=Policy(max_loaded=1000),
            applier=Applier(self.kube, self.state, defaults, inspection, pulls=pulls, rollouts=rollouts),
            status_writer=StatusWriter(self.kube, self.state, recorder, clock=self.clock),
            installations=OtherInstallations(self.kube, LeaseConfig(), created=str, clock=self.clock),
            load=lambda model: choose_load(self.state, model, defaults=defaults, current=None),
            leading=lambda: True,
            metrics=self.metrics,
            clock=self.clock,
        )

    def _list_watch(self, kind: Kind) -> ListWatch:
        return ListWatch(
            self._watches,
            _path(kind),
            self._feed.of(kind),
            log=_no_log,
            trim=_TRIMS.get(kind, identity),
            unreadable=self.unreadable,
        )

    def _change_good(self) -> None:
        self._generation += 1
        raw = samples.with_metadata(
            samples.model("good", spec={"license": f"{self._generation}"}), generation=self._generation
        )
        raw["status"] = {**get_object(raw, "status"), **get_object(self.kube.objects.get(_GOOD, {}), "status")}
        self.kube.objects[_GOOD] = raw
        self._send(Kind.MODELS, raw)
        self._watches.send(_SLICES, "MODIFIED", endpoint_slice(endpoint(), name="good", model="good"))
        self.counts["good"] += 1

    def _good_is_served(self) -> bool:
        written = get_value(self.kube.objects[_GOOD], "status", "observedGeneration")
        found = self.directory.get("lab/good")
        return written == self._generation and found is not None and bool(found.endpoints)

    def _send(self, kind: Kind, raw: JsonObject, event: str = "MODIFIED") -> None:
        self.kube.version += 1
        metadata = {**get_object(raw, "metadata"), "resourceVersion": str(self.kube.version)}
        self._watches.send(_path(kind), event, {**raw, "metadata": metadata})

    def _model(self, rng: random.Random) -> None:
        raw = self._corpus.model(rng, f"hostile-{rng.randrange(HOSTILE_MODELS)}")
        raw = samples.with_metadata(raw, generation=rng.randrange(5), creationTimestamp="2026-11-01T00:00:00Z")
        self.kube.objects[api_paths.models("lab", str(get_value(raw, "metadata", "name")))] = raw
        self._send(Kind.MODELS, raw)
        if rng.random() < YAML_SHARE:
            self._load_in_local_mode(raw)
        self.counts["models"] += 1

    def _load_in_local_mode(self, raw: Json) -> None:
        try:
            load_models(json.dumps({key: value for key, value in raw.items() if key != "status"}))
            self.counts["valid files"] += 1
        except InvalidModel:
            self.counts["invalid files"] += 1

    def _delete(self, rng: random.Random) -> None:
        name = f"hostile-{rng.randrange(HOSTILE_MODELS)}"
        self.kube.objects.pop(api_paths.models("lab", name), None)
        self._send(Kind.MODELS, self._corpus.mutated(rng, samples.model(name)), "DELETED")
        self.counts["deletions"] += 1

    def _object(self, rng: random.Random) -> None:
        name = f"hostile-{rng.randrange(HOSTILE_MODELS)}"
        kind, sample = rng.choice(
            (
                (Kind.PODS, samples.pod(name, name=f"{name}-0", spec=_POD_SPEC)),
                (Kind.DEPLOYMENTS, samples.deployment(name, replicas=1, pod_spec=_POD_SPEC)),
                (Kind.SERVICES, samples.owned(name, f"model-{name}")),
                (Kind.CLAIMS, pull_samples.claim(name)),
                (Kind.PODS, pull_samples.finished(name)),
                (Kind.NODES, samples.node("hostile", devices={"nvidia.com/gpu": "1"})),
                (Kind.OTHER_PODS, samples.other_pod(name, node="hostile")),
            )
        )
        self._send(kind, self._corpus.mutated(rng, sample), rng.choice(("ADDED", "MODIFIED", "MODIFIED", "DELETED")))
        self.counts[kind.value] += 1

    def _inspector(self, rng: random.Random) -> None:
        self._send(Kind.PODS, self._corpus.inspector_pod(rng))
        self.counts["inspector messages"] += 1

    def _slice(self, rng: random.Random) -> None:
        name = f"hostile-{rng.randrange(HOSTILE_MODELS)}"
        raw = self._corpus.mutated(rng, endpoint_slice(endpoint(), endpoint("10.9.9.9"), name=name, model=name))
        self._watches.send(_SLICES, "MODIFIED", raw)
        self.counts["endpoint slices"] += 1

    def _line(self, rng: random.Random) -> None:
        name = f"hostile-{rng.randrange(HOSTILE_MODELS)}"
        try:
            status = parse_runner_status(self._corpus.line(rng), self.clock())
            self.counts["valid lines"] += 1
        except ValueError:
            status = None
            self.counts["invalid lines"] += 1
        self._controller.runner_status_changed(f"lab/{name}", f"uid-{name}-0", status)

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for the condition: turns of the event loop, then time, because planning pauses (``current_plan``)."""
        turns, deadline = 0, time.monotonic() + LONGEST_WAIT
        while not condition():
            if turns >= MAX_LOOP_TURNS and time.monotonic() > deadline:
                raise InvariantViolated(f"no {what} within {LONGEST_WAIT:g} s")
            self._check()
            await asyncio.sleep(0 if turns < MAX_LOOP_TURNS else 0.01)
            turns += 1

    _ACTS: tuple[Callable[[ObjectFuzzer, random.Random], None], ...] = (
        *(_model, _model, _object, _object),
        *(_inspector, _slice, _line, _delete),
    )


_SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
_POD_SPEC: JsonObject = {
    "nodeName": "hostile",
    "nodeSelector": {"zone": "a"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{}]}}},
    "containers": [{"resources": {"requests": {"memory": "1Gi", "cpu": "1"}, "limits": {"memory": "2Gi"}}}],
    "initContainers": [{"restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}}],
    "overhead": {"cpu": "1m"},
}


def _path(kind: Kind) -> str:
    return "/apis/corral.dev/v1alpha1/models" if kind is Kind.MODELS else f"/{kind.value}"


def _no_log(name: str, *, path: str, reason: str = "") -> None:
    """Discard a log event."""
