"""Starts with ``updatePolicy: OnRestart``: one resolution in each, a new version first, and the present one else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from corral_core.base.json_fields import JsonObject, get_object, get_str
from corral_core.contracts.demand import DemandEntry
from corral_core.contracts.pull_status import encode_pulled
from corral_core.contracts.source_resolution import ResolvedPins, SourceResolution
from corral_core.planning.plan_memory import PlanMemory
from corral_core.planning.snapshot import Decision, Policy
from corral_core.sources.snapshot import snapshot_id
from corral_kube.errors import Forbidden
from corral_operator.config import RunnerDefaults
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.objects import ModelObject, parse_model_object
from corral_operator.reconcile.inspection import Inspection
from corral_operator.reconcile.planning.planner_input import planner_snapshot
from corral_operator.reconcile.pulling.pull_view import pull_view, pull_wanted
from corral_operator.reconcile.pulling.restarts import PULLER_TIMEOUT, RESOLVE_TIMEOUT, next_timeout
from corral_operator.report.phases import phase
from corral_operator.report.view import ModelView
from tests.operator import pull_samples, samples
from tests.operator.clock import ManualClock
from tests.operator.fake_kube import FakeKube
from tests.operator.inspector_samples import crashed

RESOLVER = api_paths.pods("lab", "model-tiny-info")
KNOWN = replace(pull_samples.PULLED, resolved_at="2026-01-01T00:00:00Z")
LATER = "2026-01-01T01:00:00Z"
NEW_SNAPSHOT = snapshot_id(pull_samples.SOURCE, "new")


class RestartCase:
    """Planner input and inspection of a pulled Model with a pending request, over an API server in memory."""

    def __init__(self, kube: FakeKube, clock: ManualClock) -> None:
        self.kube = kube
        self.clock = clock
        self.start_operator()

    def start_operator(self) -> None:
        """Start an operator, whose state is that of the API server."""
        self.state = ClusterState(clock=self.clock)
        self.inspection = Inspection(
            self.kube, self.state, RunnerDefaults(), limit=4, requeue=lambda key, delay: None, clock=self.clock
        )
        self.state.apply(Kind.CLAIMS, pull_samples.claim())
        for path, pod in self.kube.objects.items():
            if "/pods/" in path:
                self.state.apply(Kind.PODS, pod)

    async def reconcile(
        self, *, pending: int = 1, source: SourceResolution = KNOWN, spec: Mapping[str, object] | None = None
    ) -> str | None:
        """Plan and inspect; return why no runner starts."""
        entry = DemandEntry("g", pending, oldest=self.clock.now, renewed=self.clock.now)
        status = {"demand": [entry.to_json()]} if pending else {}
        self.kube.version += 1
        raw = pull_samples.model(
            version=self.kube.version, source=source, status=status, spec={"updatePolicy": "OnRestart", **(spec or {})}
        )
        self.state.apply(Kind.MODELS, raw)
        why = self.not_pulled()
        await self.inspection.reconcile(parse_model_object(raw))
        return why

    def not_pulled(self) -> str | None:
        snapshot = planner_snapshot(
            self.state, Policy(), self.clock.now, memory=PlanMemory(), drained_before=lambda key: False, errors={}
        )
        return snapshot.models[0].not_pulled

    def resolved(self, pin: str) -> None:
        """Let the resolver end."""
        self.resolver(get_object(pull_samples.inspector(ResolvedPins((pin,), 7), finished=LATER), "status"))

    def resolver(self, status: Mapping[str, object]) -> None:
        self._change(RESOLVER, status)

    def puller(self, pod: JsonObject) -> None:
        self.kube.version += 1
        self.state.apply(Kind.PODS, samples.with_metadata(pod, resourceVersion=str(self.kube.version)))

    def scaled(self, replicas: int) -> None:
        self.kube.version += 1
        self.state.apply(Kind.DEPLOYMENTS, samples.deployment(replicas=replicas, version=self.kube.version))

    def deleted(self) -> None:
        """Observe that the resolver is gone."""
        self.kube.version += 1
        self.state.replace(Kind.PODS, [], str(self.kube.version))

    def pods(self) -> list[str]:
        return [path for path in self.kube.objects if "/pods/" in path]

    @property
    def item(self) -> ModelObject:
        found = self.state.models.get("lab/tiny")
        assert found is not None
        return found

    def phase(self) -> str:
        pull = pull_view(self.state, self.item, wanted=True, now=self.clock.now)
        return phase(ModelView(self.item, Decision(0, "not yet"), metadata=self.item.metadata, pull=pull))

    def reason(self) -> str:
        """Return why the present version may not be the newest, as the status says."""
        view = pull_view(self.state, self.item, wanted=True, now=self.clock.now)
        return view.not_updated.message if view is not None and view.not_updated is not None else ""

    def _change(self, path: str, status: Mapping[str, object]) -> None:
        self.kube.version += 1
        raw = samples.with_metadata(self.kube.objects[path], resourceVersion=str(self.kube.version))
        self.kube.objects[path] = {**raw, "status": status}
        self.state.apply(Kind.PODS, self.kube.objects[path])


@pytest.fixture
def case(kube: FakeKube, clock: ManualClock) -> RestartCase:
    return RestartCase(kube, clock)


async def test_a_start_waits_until_the_source_is_resolved_without_its_pin(case: RestartCase) -> None:
    assert "resolved before the start" in str(await case.reconcile())
    assert case.pods() == [RESOLVER]
    assert "CORRAL_PINS" not in str(case.kube.objects[RESOLVER])
    assert case.phase() == "Pulling"
    case.resolved(pull_samples.PIN)
    assert await case.reconcile() is None
    assert case.phase() == "Idle"


async def test_there_is_one_resolution_in_each_start(case: RestartCase) -> None:
    await case.reconcile()
    first = get_str(case.kube.objects[RESOLVER], "metadata", "uid")
    case.resolved(pull_samples.PIN)
    recorded = replace(KNOWN, resolved_at=LATER)
    await case.reconcile(source=recorded)
    case.clock.now += 3600
    assert await case.reconcile(source=recorded) is None, "it still waits for capacity"
    case.start_operator()
    assert await case.reconcile(source=recorded) is None, "the operator was restarted"
    assert get_str(case.kube.objects[RESOLVER], "metadata", "uid") == first
    case.scaled(1)
    await case.reconcile(source=recorded)
    assert case.pods() == []
    case.deleted()
    await case.reconcile(source=recorded)
    assert case.pods() == [], "a runner is there"
    case.scaled(0)
    assert "resolved before the start" in str(await case.reconcile(source=recorded))
    assert case.pods() == [RESOLVER]


@pytest.mark.parametrize(
    ("pending", "spec"), [(0, {}), (1, {"suspend": True}), (1, {"replicas": 0}), (1, {"updatePolicy": "Pinned"})]
)
async def test_nothing_is_resolved_without_a_start(case: RestartCase, pending: int, spec: dict[str, object]) -> None:
    assert await case.reconcile(pending=pending, spec=spec) is None
    assert case.pods() == []


async def test_a_kept_replica_is_a_start(case: RestartCase) -> None:
    assert await case.reconcile(pending=0, spec={"minReplicas": 1}) is not None
    assert case.pods() == [RESOLVER]


async def test_a_new_version_is_pulled_before_the_start(case: RestartCase) -> None:
    await case.reconcile()
    case.resolved("new")
    assert "a new version is pulled before the start" in str(await case.reconcile())
    assert pull_wanted(case.state, case.item, Decision(0, ""), now=case.clock.now)
    case.puller(pull_samples.puller({"running": {}}))
    case.clock.now += 10 * PULLER_TIMEOUT
    assert await case.reconcile() is not None, "it takes as long as it takes"
    assert case.phase() == "Pulling"
    case.puller(pull_samples.finished(message=encode_pulled([NEW_SNAPSHOT])))
    assert await case.reconcile() is None
    source = case.state.source("lab/tiny")
    assert source is not None
    assert source.snapshots == {pull_samples.SOURCE: NEW_SNAPSHOT}
    case.scaled(1)
    await case.reconcile()
    assert case.pods() == [RESOLVER], "the status does not have the new version yet"
    await case.reconcile(source=source)
    assert case.pods() == []


async def test_a_pull_goes_on_after_the_request_has_gone(case: RestartCase) -> None:
    await case.reconcile()
    case.resolved("new")
    case.puller(pull_samples.puller({"running": {}}))
    await case.reconcile(pending=0)
    assert case.pods() == [RESOLVER]
    assert pull_wanted(case.state, case.item, Decision(0, ""), now=case.clock.now)
    assert "a new version is pulled" in str(await case.reconcile())
    case.puller(pull_samples.puller({"waiting": {}}, last=pull_samples.failed("PullFailed: denied")))
    await case.reconcile(pending=0)
    assert case.pods() == []


async def test_a_resolver_that_fails_lets_the_present_version_start_and_is_the_reason(case: RestartCase) -> None:
    await case.reconcile()
    case.resolver(crashed("the registry does not answer"))
    assert await case.reconcile() is None
    assert case.state.source("lab/tiny") == KNOWN
    assert "the registry does not answer" in case.reason()
    case.scaled(1)
    await case.reconcile()
    case.deleted()
    assert "the registry does not answer" in case.reason(), "as long as the runner is there"
    case.scaled(0)
    await case.reconcile()
    assert case.reason() == "", "the next start resolves again"


async def test_a_resolver_that_the_api_server_rejects_lets_the_present_version_start(case: RestartCase) -> None:
    case.kube.failures += 3 * [Forbidden("exceeded quota: pods")]  # the ranges of the cluster, and the pod
    await case.reconcile()
    assert case.not_pulled() is None


async def test_a_resolver_that_does_not_answer_lets_the_present_version_start_and_is_the_reason(
    case: RestartCase,
) -> None:
    await case.reconcile()
    assert next_timeout(case.state, case.clock.now) == case.clock.now + RESOLVE_TIMEOUT
    case.clock.now += RESOLVE_TIMEOUT
    assert await case.reconcile() is None
    assert case.pods() == [RESOLVER]
    case.scaled(1)
    await case.reconcile()
    assert case.pods() == []
    assert "did not answer" in case.reason()


async def test_a_pull_that_fails_lets_the_present_version_start_and_ends(case: RestartCase) -> None:
    await case.reconcile()
    case.resolved("new")
    case.puller(pull_samples.puller({"waiting": {}}, last=pull_samples.failed("PullFailed: denied")))
    assert await case.reconcile() is None
    assert case.state.source("lab/tiny") == KNOWN
    case.scaled(1)
    assert not pull_wanted(case.state, case.item, Decision(1, ""), now=case.clock.now)
    await case.reconcile()
    assert case.pods() == []
    case.deleted()
    assert "the new version new is not pulled: denied" in case.reason()


async def test_a_puller_that_does_not_run_lets_the_present_version_start(case: RestartCase) -> None:
    await case.reconcile()
    case.resolved("new")
    case.clock.now += PULLER_TIMEOUT - 1
    assert await case.reconcile() is not None
    case.clock.now += 1
    assert await case.reconcile() is None
