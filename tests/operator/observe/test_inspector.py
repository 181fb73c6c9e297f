"""Inspector pods as observed."""

from __future__ import annotations

from collections.abc import Mapping

from corral_core.base.json_fields import get_objects
from corral_operator.observe.inspector import Inspector, parse_inspector
from tests.operator.inspector_samples import container, crashed, inspector_in, succeeded


def parsed(status: Mapping[str, object]) -> Inspector:
    return parse_inspector(inspector_in(status))


def test_unreadable_weights_are_a_failure_from_the_first_failed_start_on() -> None:
    status = crashed("there is no file /weights/a.gguf")
    restarted = {**get_objects(status, "containerStatuses")[0], "state": {"running": {}}}
    for found in (parsed(status), parsed({"phase": "Running", "containerStatuses": [restarted]})):
        assert found.failure is not None
        assert (found.failure.reason, found.failure.phase) == ("WeightsUnreadable", "Failed")
        assert "there is no file /weights/a.gguf" in found.failure.message


def test_an_image_that_cannot_be_pulled_is_a_failure() -> None:
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    failure = parsed({"phase": "Pending", "containerStatuses": [container(waiting)]}).failure
    assert failure is not None
    assert (failure.reason, failure.message, failure.phase) == ("ImagePullBackOff", "no such image", "Failed")


def test_a_termination_message_without_metadata_is_a_failure() -> None:
    failure = parsed(succeeded("hello")).failure
    assert failure is not None
    assert failure.phase == "Failed"
