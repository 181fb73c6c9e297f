"""Status writer: a status is written when it changed, and traffic alone writes next to nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.base.durations import FOREVER
from corral_core.base.json_fields import get_objects, get_value
from corral_core.base.timestamps import format_time
from corral_core.contracts.pull_status import PullStatus
from corral_core.contracts.source_resolution import SourceResolution
from corral_core.planning.snapshot import Decision
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.objects import ModelObject, parse_model_object, parse_pod
from corral_operator.observe.pod_failures import PodFailure
from corral_operator.observe.pulling.puller import parse_puller
from corral_operator.observe.streams.runner_info import RunnerInfo
from corral_operator.report.event_recorder import EventRecorder
from corral_operator.report.status_writer import (
    LOADING_DELAY,
    PENDING_WRITE_INTERVAL,
    PULL_WRITE_INTERVAL,
    USAGE_WRITE_INTERVAL,
    StatusWriter,
)
from corral_operator.report.usage import Usage
from corral_operator.report.view import ModelView, PullView
from tests.operator import pull_samples, samples
from tests.operator.clock import ManualClock
from tests.operator.fake_kube import FakeKube
from tests.operator.samples import METADATA, NOW

MODEL, STATUS = api_paths.models("lab", "tiny"), api_paths.model_status("lab", "tiny")


class WriterCase:
    """A status writer over an API server in memory."""

    def __init__(self, kube: FakeKube, state: ClusterState, clock: ManualClock) -> None:
        self.kube = kube
        self.state = state
        self.clock = clock
        self.kube.objects[MODEL] = samples.model()
        self.state.apply(Kind.MODELS, samples.model())
        self.writer = StatusWriter(kube, state, EventRecorder(kube, clock=clock), clock=clock)

    @property
    def item(self) -> ModelObject:
        found = self.state.models.get("lab/tiny")
        assert found is not None
        return found

    async def write(
        self,
        replicas: int = 1,
        *,
        expires_at: float | None = None,
        idle_since: float | None = None,
        keep_alive: float | None = None,
        pending: int = 0,
        info: RunnerInfo | None = None,
        ready: bool = True,
    ) -> float | None:
        if keep_alive is None and expires_at is not None:
            keep_alive = 300.0
        view = ModelView(
            item=self.item,
            metadata=self.item.metadata,
            decision=Decision(replicas, "as planned"),
            pods=(parse_pod(samples.pod(ready=ready)),) if replicas else (),
            usage=Usage(expires_at, idle_since, keep_alive),
            pending=pending,
            info=info,
        )
        return await self.writer.write(view)

    async def write_pull(self, percent: int | None, *, replicas: int = 0) -> float | None:
        """Write the status of a Model whose sources are pulled to this part, None: entirely.

        Its runners have an earlier version.
        """
        pull = PullView(pull_samples.PULLED)
        if percent is not None:
            puller = parse_puller(pull_samples.puller({"running": {}}))
            pull = PullView(pull_samples.RESOLVED, puller=puller, status=PullStatus(percent, 100, 1.0, "pulling"))
        return await self.write_view(pull, replicas=replicas)

    async def write_view(self, pull: PullView, *, replicas: int = 0) -> float | None:
        raw = pull_samples.model(version=self.item.meta.version, status=self.item.status)
        item = replace(parse_model_object(raw), status=self.item.status)
        view = ModelView(
            item=item,
            metadata=pull_samples.METADATA,
            decision=Decision(replicas, "as planned"),
            pods=(parse_pod(samples.pod(ready=True)),) if replicas else (),
            pull=pull,
        )
        return await self.writer.write(view)

    def status_writes(self) -> int:
        return self.kube.writes.count(STATUS)

    def events(self) -> list[str]:
        return [str(one["reason"]) for path, one in self.kube.objects.items() if "/events/" in path]


@pytest.fixture
def case(kube: FakeKube, state: ClusterState, clock: ManualClock) -> WriterCase:
    return WriterCase(kube, state, clock)


async def test_an_unchanged_status_is_written_once(case: WriterCase) -> None:
    await case.write()
    await case.write()
    assert case.status_writes() == 1


async def test_a_change_of_phase_is_written_at_once(case: WriterCase) -> None:
    await case.write(1)
    await case.write(0)
    assert case.status_writes() == 2


async def test_the_changes_of_a_loading_model_are_gathered(case: WriterCase) -> None:
    await case.write(0)
    assert await case.write(1, ready=False) == pytest.approx(LOADING_DELAY)
    case.clock.now += LOADING_DELAY / 2
    assert await case.write(1, ready=False) == pytest.approx(LOADING_DELAY / 2)
    assert case.status_writes() == 1
    case.clock.now += LOADING_DELAY
    assert await case.write(1, ready=False) is None
    assert case.status_writes() == 2


async def test_readiness_is_written_at_once_although_loading_is_delayed(case: WriterCase) -> None:
    await case.write(0)
    await case.write(1, ready=False)
    assert await case.write(1) is None
    assert case.item.status["phase"] == "Ready"


async def test_a_change_of_phase_posts_an_event(case: WriterCase) -> None:
    await case.write(1)
    await case.write(0)
    assert case.events() == ["Ready", "Idle"]


async def test_a_change_of_the_expiry_alone_is_written_once_a_minute(case: WriterCase) -> None:
    await case.write(expires_at=NOW + 300)
    case.clock.now += 10
    assert await case.write(expires_at=NOW + 310) == USAGE_WRITE_INTERVAL - 10
    assert case.status_writes() == 1
    case.clock.now = NOW + USAGE_WRITE_INTERVAL
    assert await case.write(expires_at=NOW + 360) is None
    assert case.status_writes() == 2


async def test_the_first_expiry_after_loading_is_written_at_once(case: WriterCase) -> None:
    await case.write()
    case.clock.now += 1
    assert await case.write(expires_at=NOW + 300) is None
    assert case.status_writes() == 2


async def test_an_expiry_that_was_withdrawn_is_written_at_once_when_it_is_known_again(case: WriterCase) -> None:
    await case.write(expires_at=NOW + 300)
    await case.write(info=RunnerInfo(METADATA, parallel=4, context_length=2048))
    await case.write(expires_at=NOW + 301)
    assert case.item.status["expiresAt"] == format_time(NOW + 301)


async def test_since_when_a_model_is_idle_moves_with_its_expiry(case: WriterCase) -> None:
    await case.write(expires_at=NOW + 300)
    case.clock.now += 5
    assert await case.write(expires_at=NOW + 304, idle_since=NOW + 4) == USAGE_WRITE_INTERVAL - 5
    case.clock.now = NOW + USAGE_WRITE_INTERVAL
    assert await case.write(expires_at=NOW + 304, idle_since=NOW + 4) is None
    assert case.item.status["idleSince"] == format_time(NOW + 4)
    assert case.item.status["keepAlive"] == "5m0s"


async def test_requests_to_a_model_that_is_never_unloaded_write_once_a_minute_at_most(case: WriterCase) -> None:
    for second in range(61):
        case.clock.now = NOW + second
        await case.write(idle_since=NOW + second, keep_alive=FOREVER)
    assert case.status_writes() == 2
    assert case.item.status["keepAlive"] == "forever"


async def test_since_when_an_unloaded_model_is_idle_stays_although_it_was_not_written_before(case: WriterCase) -> None:
    await case.write(expires_at=NOW + 300)
    case.clock.now += 5
    await case.write(expires_at=NOW + 304, idle_since=NOW + 4)
    await case.write(0)
    assert case.item.status["idleSince"] == format_time(NOW + 4)
    assert "expiresAt" not in case.item.status
    case.clock.now += 100
    await case.write(0)
    assert case.item.status["idleSince"] == format_time(NOW + 4)


async def test_pending_requests_alone_are_written_every_ten_seconds_at_most(case: WriterCase) -> None:
    await case.write(pending=1)
    for waiting in range(2, 50):
        assert await case.write(pending=waiting) == PENDING_WRITE_INTERVAL
    assert case.status_writes() == 1
    case.clock.now += PENDING_WRITE_INTERVAL
    assert await case.write(pending=50) is None
    assert case.item.status["pending"] == 50
    assert case.status_writes() == 2


async def test_pending_requests_are_written_with_any_other_change(case: WriterCase) -> None:
    await case.write(pending=1)
    await case.write(0, pending=2)
    assert (case.item.status["phase"], case.item.status["pending"]) == ("Idle", 2)


async def test_a_model_that_was_deleted_in_the_meantime_is_no_error(case: WriterCase) -> None:
    del case.kube.objects[MODEL]
    assert await case.write() is None


async def test_a_field_that_the_server_prunes_is_written_once(case: WriterCase) -> None:
    await case.write()
    status = {**case.item.status, "selector": "something else"}
    case.state.apply(Kind.MODELS, samples.model(version=10_000, status=status))
    await case.write()
    writes = len(case.kube.writes)
    await case.write()
    await case.write()
    assert len(case.kube.writes) == writes


async def test_a_failure_is_a_condition_beside_the_present_status_until_the_next_success(case: WriterCase) -> None:
    await case.write(1)
    await case.writer.write_failure(case.item, "OverflowError: a number")
    conditions = {one["type"]: one for one in get_objects(case.item.status, "conditions")}
    assert case.item.status["phase"] == "Ready"
    assert conditions["Ready"]["status"] == "True"
    assert conditions["Stalled"]["status"] == "True"
    assert "OverflowError: a number" in str(conditions["Stalled"]["message"])
    assert case.events() == ["Ready", "InternalError"]
    await case.writer.write_failure(case.item, "OverflowError: a number")
    assert case.status_writes() == 2, "the same error is written once"
    await case.write(1)
    assert "Stalled" not in [one["type"] for one in get_objects(case.item.status, "conditions")]


async def test_the_progress_of_a_pull_is_written_every_few_seconds(case: WriterCase) -> None:
    await case.write_pull(10)
    assert await case.write_pull(20) == PULL_WRITE_INTERVAL
    case.clock.now += PULL_WRITE_INTERVAL
    assert await case.write_pull(30) is None
    assert case.status_writes() == 2
    assert get_value(case.kube.objects[MODEL], "status", "pull", "completed") == "30%"


async def test_the_progress_of_a_pull_is_written_as_rarely_while_an_earlier_version_serves(case: WriterCase) -> None:
    await case.write_pull(10, replicas=1)
    assert get_value(case.kube.objects[MODEL], "status", "phase") == "Ready"
    assert await case.write_pull(20, replicas=1) == PULL_WRITE_INTERVAL


async def test_the_end_of_a_pull_is_an_event_and_written_at_once(case: WriterCase) -> None:
    await case.write_pull(10)
    await case.write_pull(None)
    assert [reason for reason in case.events() if reason in ("Pulling", "Pulled")] == ["Pulling", "Pulled"]
    assert get_value(case.kube.objects[MODEL], "status", "source", "claim") == "model-tiny"


async def test_a_new_version_its_failure_and_its_end_are_events(case: WriterCase) -> None:
    update = SourceResolution(pull_samples.SOURCE, {pull_samples.SOURCE: "new"}, 7)
    pulled = replace(update, snapshots={pull_samples.SOURCE: "1" * 32}, claim="model-tiny", claim_uid="uid-claim")
    failure = PodFailure("PullFailed", "the registry refuses it", "Failed")
    await case.write_view(PullView(pull_samples.PULLED))
    for view in (
        PullView(pull_samples.PULLED, update=update),
        PullView(pull_samples.PULLED, update=update, rejected=failure),
        PullView(pull_samples.PULLED, update=update, rejected=failure),
        PullView(pulled),
    ):
        case.clock.now += PULL_WRITE_INTERVAL
        await case.write_view(view)
    posted = [
        one
        for path, one in case.kube.objects.items()
        if "/events/" in path and one["reason"] not in ("Idle", "Pulling")
    ]
    assert [(one["reason"], one["type"]) for one in posted] == [
        ("Pulled", "Normal"),
        ("Updating", "Normal"),
        ("UpdateFailed", "Warning"),
        ("Pulled", "Normal"),
    ]
    assert "the registry refuses it" in str(posted[2]["message"])
