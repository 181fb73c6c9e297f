"""A Model whose runner cannot start says why, and its pending requests get that error instead of a timeout."""

from __future__ import annotations

import ollama
import pytest

from tests.cluster.api import at, condition
from tests.node.real_cluster import WEIGHTS
from tests.node.release import COLD_START, Release

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"source": "pvc://weights/absent.gguf"}, "absent.gguf"),
        ({"source": "pvc://missing/model.gguf"}, 'no PersistentVolumeClaim "missing"'),
        ({"pod": {"image": "127.0.0.1:9/missing/runner:none"}}, "127.0.0.1:9/missing/runner:none"),
        ({"pod": {"resources": {"limits": {"memory": "40Mi"}}}}, "more memory than its limit of 40Mi; the estimate is"),
        ({"pod": {"resources": {"limits": {"memory": "140Mi"}}}}, "does not fit in the container's memory: it needs"),
    ],
    ids=["no file", "no claim", "no image", "OOM killed", "memory limit too low"],
)
def test_a_pending_request_gets_the_reason_why_the_runner_cannot_start(
    release: Release, model: str, spec: dict[str, object], words: str
) -> None:
    release.add(model, **spec)
    with pytest.raises(ollama.ResponseError) as raised:
        release.ask(model).result(COLD_START)
    assert words in raised.value.error
    release.wait_phase(model, "Failed")
    conditions = [condition(release.model(model), kind) for kind in ("Ready", "Scheduled", "Accepted")]
    assert any(words in str(item.get("message")) for item in conditions), conditions


def test_a_model_too_large_for_every_node_fails_with_numbers_until_it_requests_less(
    release: Release, model: str
) -> None:
    release.add(model, pod={"resources": {"requests": {"memory": "9000Gi"}}})
    with pytest.raises(ollama.ResponseError) as raised:
        release.ask(model).result(COLD_START)
    assert "needs 8.79 TiB memory; the most that any node has is" in raised.value.error
    release.wait_phase(model, "Failed")
    assert release.pods(model) == []
    release.edit(model, pod={"resources": {"requests": {"memory": "100Mi"}}})
    release.wait_phase(model, "Idle")
    assert release.ask(model).result(COLD_START).ends == 1


def test_unreadable_weights_are_reported_before_a_request_and_read_again_when_fixed(
    release: Release, model: str
) -> None:
    release.add(model, source="pvc://weights/absent.gguf")
    release.wait_phase(model, "Failed")
    assert "absent.gguf" in str(condition(release.model(model), "Inspected").get("message"))
    release.edit(model, source=f"pvc://weights/{WEIGHTS}")
    release.wait_phase(model, "Idle")
    assert release.pods(model) == []
    assert release.ask(model).result(COLD_START).ends == 1
    container = at(release.pods(model)[0], "spec", "containers", 0)
    requested = at(container, "resources", "requests", "memory")
    assert requested == at(container, "resources", "limits", "memory")
    estimated = int(str(requested).removesuffix("Mi")) << 20
    used = at(release.model(model), "status", "placement", "sizeBytes")
    assert isinstance(used, int)
    assert used < estimated < 2 * used + (128 << 20)
