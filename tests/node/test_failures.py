"""A Model whose runner cannot come says why, and requests that wait for it are told so instead of timing out."""

from __future__ import annotations

import ollama
import pytest

from tests.cluster.api import at, condition
from tests.node.release import WAKE, Release
from tests.node.site import WEIGHTS

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"source": "pvc://weights/absent.gguf"}, "absent.gguf"),
        ({"source": "pvc://nobody/model.gguf"}, 'no PersistentVolumeClaim "nobody"'),
        ({"pod": {"image": "127.0.0.1:9/nobody/runner:none"}}, "127.0.0.1:9/nobody/runner:none"),
        ({"pod": {"resources": {"limits": {"memory": "40Mi"}}}}, "more memory than its limit of 40Mi; by the estimate"),
        ({"pod": {"resources": {"limits": {"memory": "140Mi"}}}}, "does not fit the container's memory: it needs"),
    ],
    ids=["no file", "no claim", "no image", "killed for its memory", "too little memory"],
)
def test_a_waiting_request_is_told_why_the_runner_cannot_come(
    release: Release, model: str, spec: dict[str, object], words: str
) -> None:
    release.add(model, **spec)
    with pytest.raises(ollama.ResponseError) as told:
        release.ask(model).result(WAKE)
    assert words in told.value.error
    release.wait_phase(model, "Failed")
    conditions = [condition(release.model(model), kind) for kind in ("Ready", "Scheduled", "Accepted")]
    assert any(words in str(item.get("message")) for item in conditions), conditions


def test_a_model_that_no_node_can_ever_hold_fails_with_the_numbers_until_it_asks_for_less(
    release: Release, model: str
) -> None:
    release.add(model, pod={"resources": {"requests": {"memory": "9000Gi"}}})
    with pytest.raises(ollama.ResponseError) as told:
        release.ask(model).result(WAKE)
    assert "needs 8.79 TiB memory; the most that any node has is" in told.value.error
    release.wait_phase(model, "Failed")
    assert release.pods(model) == []
    release.edit(model, pod={"resources": {"requests": {"memory": "100Mi"}}})
    release.wait_phase(model, "Idle")
    assert release.ask(model).result(WAKE).ends == 1


def test_weights_that_cannot_be_read_are_told_before_anybody_asks_and_read_anew_when_mended(
    release: Release, model: str
) -> None:
    release.add(model, source="pvc://weights/absent.gguf")
    release.wait_phase(model, "Failed")
    assert "absent.gguf" in str(condition(release.model(model), "Inspected").get("message"))
    release.edit(model, source=f"pvc://weights/{WEIGHTS}")
    release.wait_phase(model, "Idle")
    assert release.pods(model) == []
    assert release.ask(model).result(WAKE).ends == 1
    container = at(release.pods(model)[0], "spec", "containers", 0)
    asked = at(container, "resources", "requests", "memory")
    assert asked == at(container, "resources", "limits", "memory")
    estimated = int(str(asked).removesuffix("Mi")) << 20
    taken = at(release.model(model), "status", "placement", "sizeBytes")
    assert isinstance(taken, int)
    assert taken < estimated < 2 * taken + (128 << 20)
