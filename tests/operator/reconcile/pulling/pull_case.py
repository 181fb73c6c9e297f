"""Pulls over an API server in memory."""

from __future__ import annotations

from collections.abc import Mapping

from corral_core.base.json_fields import JsonObject, get_object, get_objects, get_str
from corral_core.contracts.pull_status import PullStatus
from corral_core.contracts.source_resolution import SourceResolution
from corral_operator.config import PullerDefaults, RunnerDefaults
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.objects import parse_model_object
from corral_operator.reconcile.pulling.pulls import Pulls
from tests.operator import pull_samples, samples
from tests.operator.clock import ManualClock
from tests.operator.fake_kube import FakeKube

CLAIM = api_paths.claims("lab", "model-tiny")
PULLER = api_paths.pods("lab", "model-tiny-pull")


class PullCase:
    """Pulls over an API server in memory."""

    def __init__(self, kube: FakeKube, clock: ManualClock) -> None:
        self.kube = kube
        self.clock = clock
        self.version = 10
        self.requeued: list[str] = []
        self.delays: list[float] = []
        self.start()

    def start(self, defaults: PullerDefaults | None = None) -> None:
        """Start an operator, whose state is empty."""
        self.state = ClusterState(clock=self.clock)
        runner = RunnerDefaults(puller=defaults or PullerDefaults())
        self.pulls = Pulls(self.kube, self.state, runner, requeue=self._requeue, clock=self.clock)

    async def reconcile(
        self,
        name: str = "tiny",
        *,
        wanted: bool = True,
        source: SourceResolution | None = pull_samples.RESOLVED,
        **spec: object,
    ) -> None:
        self.version += 1
        raw = pull_samples.model(name, version=self.version, source=source, spec=spec)
        self.state.apply(Kind.MODELS, raw)
        await self.pulls.reconcile(parse_model_object(raw), wanted=wanted)

    def objects(self, kind: str) -> list[str]:
        return [path.rpartition("/")[2] for path in self.kube.objects if f"/{kind}/" in path]

    def set_status(self, status: Mapping[str, object], path: str = PULLER) -> None:
        """Change the status of the puller, and receive its watch event."""
        self.kube.version += 1
        raw = samples.with_metadata(self.kube.objects[path], resourceVersion=str(self.kube.version))
        self.kube.objects[path] = {**raw, "status": status}
        self.state.apply(Kind.PODS, self.kube.objects[path])

    def progress(self, completed: int) -> None:
        uid = get_str(self.kube.objects[PULLER], "metadata", "uid")
        self.state.pull_statuses[uid] = PullStatus(completed, stage="pulling")

    def finish(self) -> None:
        self.set_status(get_object(pull_samples.finished(), "status"))

    def claim_uid(self) -> str:
        return get_str(self.kube.objects[CLAIM], "metadata", "uid")

    def container(self) -> JsonObject:
        return get_objects(self.kube.objects[PULLER], "spec", "containers")[0]

    def _requeue(self, key: str, delay: float) -> None:
        self.delays.append(delay)
        if delay == 0:
            self.requeued.append(key)
