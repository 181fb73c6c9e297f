"""Event recorder: equal Events are one object, and a Model has a bounded number of them."""

from __future__ import annotations

import pytest

from corral_core.base.json_fields import JsonObject, get_value
from corral_core.base.timestamps import format_time
from corral_kube.errors import APIServerUnreachable
from corral_operator.observe.objects import parse_model_object
from corral_operator.report.event_recorder import BURST, REFILL, REMEMBERED, EventRecorder
from corral_operator.report.events import ModelEvent
from tests.operator import samples
from tests.operator.clock import ManualClock
from tests.operator.fake_kube import FakeKube
from tests.operator.samples import NOW

ITEM, OTHER = parse_model_object(samples.model()), parse_model_object(samples.model("other"))
IDLE = ModelEvent("Idle", "inactive")


@pytest.fixture
def recorder(kube: FakeKube, clock: ManualClock) -> EventRecorder:
    return EventRecorder(kube, clock=clock)


def written(kube: FakeKube) -> list[JsonObject]:
    return [item for path, item in kube.objects.items() if "/events/" in path]


async def test_an_event_names_its_model_and_reason(kube: FakeKube, recorder: EventRecorder) -> None:
    await recorder.record(ITEM, ModelEvent("Failed", "x" * 2000, warning=True))
    (event,) = written(kube)
    assert (event["type"], event["reason"], len(str(event["message"]))) == ("Warning", "Failed", 1024)
    assert get_value(event, "involvedObject", "uid") == "uid-tiny"


async def test_equal_events_are_one_object_with_a_count(
    kube: FakeKube, recorder: EventRecorder, clock: ManualClock
) -> None:
    await recorder.record(ITEM, IDLE)
    clock.now += 60
    await recorder.record(ITEM, IDLE)
    await recorder.record(ITEM, ModelEvent("Idle", "another reason"))
    first, _ = written(kube)
    assert (first["count"], first["firstTimestamp"], first["lastTimestamp"]) == (
        2,
        format_time(NOW),
        format_time(NOW + 60),
    )
    assert len(written(kube)) == 2


async def test_a_restarted_operator_updates_the_same_object(kube: FakeKube, recorder: EventRecorder) -> None:
    await recorder.record(ITEM, IDLE)
    await EventRecorder(kube).record(ITEM, IDLE)
    assert len(written(kube)) == 1


async def test_events_of_one_model_are_bounded_and_those_of_others_are_not(
    kube: FakeKube, recorder: EventRecorder, clock: ManualClock
) -> None:
    for number in range(2 * BURST):
        await recorder.record(ITEM, ModelEvent("Loading", f"load {number}"))
    await recorder.record(OTHER, IDLE)
    assert len(written(kube)) == BURST + 1
    clock.now += REFILL
    await recorder.record(ITEM, IDLE)
    assert len(written(kube)) == BURST + 2


async def test_a_bounded_number_of_events_is_remembered(
    kube: FakeKube, recorder: EventRecorder, clock: ManualClock
) -> None:
    await recorder.record(ITEM, IDLE)
    for number in range(REMEMBERED):
        clock.now += REFILL
        await recorder.record(ITEM, ModelEvent("Loading", f"load {number}"))
    await recorder.record(ITEM, IDLE)
    (again,) = [event for event in written(kube) if event["reason"] == "Idle"]
    assert again["count"] == 1, "it was forgotten"


async def test_an_event_that_cannot_be_written_is_dropped(kube: FakeKube, recorder: EventRecorder) -> None:
    kube.failures = [APIServerUnreachable("no answer")]
    await recorder.record(ITEM, IDLE)
    assert written(kube) == []
