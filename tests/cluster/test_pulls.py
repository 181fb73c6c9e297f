"""Remote sources on a real API server: resolver and puller processes, claims, and a request for what they pulled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import ollama
import pytest

from corral_core.base.json_fields import get_object
from tests.cluster.api import Object, at
from tests.cluster.fake_kubelet import FakeKubelet
from tests.cluster.fake_volumes import FakeVolumes
from tests.cluster.installation import POLL_INTERVAL, START_TIMEOUT, Gateway, Installation
from tests.support.ollama_registry import OllamaRegistry, ollama_registry, padded_weights, sha256
from tests.support.tiny_model import write_tiny_model
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]

SIZE = 12 * 2**20


@dataclass(frozen=True)
class PullCase:
    """An installation whose pullers reach the registry."""

    corral: Installation
    registry: OllamaRegistry
    kubelet: FakeKubelet
    gateway: Gateway

    def add(self, name: str, **spec: object) -> None:
        self.corral.add(name, **({"source": self.registry.uri()} | spec))

    def condition(self, name: str, kind: str) -> Object:
        found = at(self.corral.model(name), "status", "conditions")
        return next((one for one in found if one["type"] == kind), {}) if isinstance(found, list) else {}

    def pull(self, name: str) -> object:
        return at(self.corral.model(name), "status", "pull")

    def pin(self, name: str) -> object:
        return at(self.corral.model(name), "status", "source", "pin")

    def claim(self, name: str) -> Object | None:
        path = f"/api/v1/namespaces/{self.corral.namespace}/persistentvolumeclaims/{name}"
        return self.corral.cluster.api.find(path)

    def pod(self, name: str) -> Object | None:
        return self.corral.cluster.api.find(f"/api/v1/namespaces/{self.corral.namespace}/pods/{name}")

    def show(self, name: str, **body: object) -> dict[str, object]:
        answer = httpx.post(f"{self.gateway.url}/api/show", json={"model": name, **body}, timeout=20)
        found: dict[str, object] = answer.raise_for_status().json()
        return found

    def events(self, name: str) -> list[str]:
        found = self.corral.cluster.api.items(f"/api/v1/namespaces/{self.corral.namespace}/events")
        return [str(one["reason"]) for one in found if at(one, "involvedObject", "name") == name]

    def wait(self, name: str, kind: str, status: str) -> None:
        what = f"condition {kind} {status} of {name}"
        until(lambda: self.condition(name, kind).get("status") == status, START_TIMEOUT, what=what)

    def move_tag(self, folder: Path, *, keep: bool = True) -> None:
        """Push another version of the model; ``keep``: the registry has the present one by its digest."""
        before = self.registry.manifests["/v2/library/tiny/manifests/latest"]
        self.registry.push(padded_weights(write_tiny_model(folder, seed=2), SIZE))
        if keep:
            self.registry.manifests[f"/v2/library/tiny/manifests/sha256:{sha256(before)}"] = before

    def listed(self, name: str) -> Object:
        """Return the entry of a Model in the gateway's list."""
        models = httpx.get(f"{self.gateway.url}/api/tags", timeout=10).json()["models"]
        return next((one for one in models if one["name"].startswith(name)), {})

    def deleted(self, name: str) -> None:
        self.corral.cluster.api.delete(self.corral.path(name))


@pytest.fixture
def volumes(corral: Installation) -> Iterator[FakeVolumes]:
    made = FakeVolumes(corral.cluster.api)
    yield made
    made.close()


@pytest.fixture
def case(corral: Installation, fake_kubelet: FakeKubelet, volumes: FakeVolumes, tmp_path: Path) -> Iterator[PullCase]:
    with ollama_registry() as registry:
        registry.push(padded_weights(write_tiny_model(tmp_path), SIZE))
        plain = [{"name": "CORRAL_PLAIN_HTTP_HOSTS", "value": registry.host}]
        corral.start_operator(CORRAL_PULLER_ENV=json.dumps(plain))
        yield PullCase(corral, registry, fake_kubelet, corral.start_gateway())


def test_a_model_is_pulled_and_answers(case: PullCase) -> None:
    case.registry.limit = SIZE // 2
    case.add("tale")
    case.corral.wait_phase("tale", "Pulling")
    assert case.condition("tale", "Inspected")["status"] == "True", "the header is read before the download"
    assert at(case.corral.model("tale"), "status", "model", "family") == "llama"
    assert case.corral.replicas("tale") == 0
    until(lambda: at(case.pull("tale"), "completedBytes") or 0, START_TIMEOUT, what="progress", interval=POLL_INTERVAL)
    shown = case.corral.cluster.kubectl("-n", case.corral.namespace, "get", "models", "tale").stdout
    assert "PULLED" in shown
    assert "%" in shown

    answer = case.corral.send(case.gateway, "tale", tokens=4)
    until(lambda: case.corral.demand("tale") == 1, 15, what="the demand of the pending request")
    assert not answer.done()
    case.registry.go_on.set()
    assert answer.result(START_TIMEOUT).done is not None
    case.wait("tale", "Pulled", "True")
    source = at(case.corral.model("tale"), "status", "source")
    assert str(at(source, "pin")).startswith("sha256:")
    assert at(source, "claim") == "model-tale"
    until(lambda: case.pod("model-tale-pull") is None, 30, what="the end of the puller")
    assert case.pull("tale") is None
    until(lambda: "Pulled" in case.events("tale"), 15, what="the Event")
    assert "Pulling" in case.events("tale")

    case.deleted("tale")
    until(lambda: case.claim("model-tale") is None, START_TIMEOUT, what="the end of the claim")


def test_show_is_the_same_before_and_after_a_load(case: PullCase, tmp_path: Path) -> None:
    weights = write_tiny_model(tmp_path).read_bytes()
    template = "{{ range .Messages }}{{ .Content }} {{ end }}{{ .Suffix }}"
    params = {"temperature": 0.5, "stop": ["<end>"], "num_ctx": 512}
    case.registry.push(weights, "tale", template=template, system="Be brief.", params=params, license="MIT")
    case.add("tale", source=case.registry.uri("tale"), contextLength="auto")
    case.wait("tale", "Pulled", "True")
    cold = case.show("tale")
    assert (cold["system"], cold["license"], cold["capabilities"]) == ("Be brief.", "MIT", ["completion", "insert"])
    assert cold["template"] == template

    case.corral.send(case.gateway, "tale", tokens=2).result(START_TIMEOUT)
    loaded = case.show("tale", verbose=True)
    assert loaded.pop("tensors")
    info = get_object(loaded, "model_info")
    scalars = {name: None if isinstance(value, list) else value for name, value in info.items()}
    assert {**loaded, "model_info": scalars} == cold == case.show("tale")
    assert at(case.corral.model("tale"), "status", "placement", "contextLength") == 512


def test_api_pull_streams_the_progress(case: PullCase) -> None:
    case.registry.limit = SIZE // 2
    case.add("streamed")
    case.corral.wait_phase("streamed", "Pulling")
    statuses: list[str] = []
    with httpx.stream("POST", f"{case.gateway.url}/api/pull", json={"model": "streamed"}, timeout=60) as response:
        for line in response.iter_lines():
            found = json.loads(line)
            statuses.append(found["status"])
            if found.get("completed"):
                case.registry.go_on.set()
    assert statuses[0] == "pulling manifest"
    assert any(status.startswith("pulling ") and status != "pulling manifest" for status in statuses)
    assert statuses[-1] == "success"


def test_an_edited_source_is_pulled_while_the_earlier_one_serves(case: PullCase, tmp_path: Path) -> None:
    case.add("edited")
    case.corral.send(case.gateway, "edited", tokens=2).result(START_TIMEOUT)
    before = case.corral.deployment("edited")
    case.registry.push(padded_weights(write_tiny_model(tmp_path, seed=2), SIZE), tag="v2")
    case.registry.limit = case.registry.sent + SIZE // 2
    case.corral.edit("edited", source=case.registry.uri(tag="v2"))
    until(lambda: case.condition("edited", "Pulled").get("reason") == "Pulling", START_TIMEOUT, what="the second pull")
    assert case.corral.send(case.gateway, "edited", tokens=2).result(START_TIMEOUT).done is not None
    assert at(case.corral.deployment("edited"), "spec", "template") == at(before, "spec", "template")
    case.registry.go_on.set()
    case.wait("edited", "Pulled", "True")
    until(
        lambda: at(case.corral.deployment("edited"), "spec", "template") != at(before, "spec", "template"),
        START_TIMEOUT,
        what="the new version in the Deployment",
    )
    assert case.corral.send(case.gateway, "edited", tokens=2).result(START_TIMEOUT).done is not None


def test_a_moved_tag_is_pulled_by_itself_while_the_pulled_version_serves(case: PullCase, tmp_path: Path) -> None:
    case.add("moved", updatePolicy="Poll", pollInterval="30s", keepAlive="1s")
    case.corral.send(case.gateway, "moved", tokens=2).result(START_TIMEOUT)
    pin = case.pin("moved")
    loaded = case.corral.deployment("moved")
    case.registry.limit = case.registry.sent + SIZE // 2
    case.registry.push(padded_weights(write_tiny_model(tmp_path, seed=2), SIZE))
    until(
        lambda: case.condition("moved", "Pulled").get("reason") == "Updating",
        START_TIMEOUT,
        what="the pull of the new version",
        interval=POLL_INTERVAL,
    )
    case.corral.wait_replicas("moved", 0)
    assert case.corral.send(case.gateway, "moved", tokens=2).result(START_TIMEOUT).done is not None
    assert case.pin("moved") == pin
    assert at(case.corral.deployment("moved"), "spec", "template") == at(loaded, "spec", "template")

    case.registry.go_on.set()
    until(lambda: case.pin("moved") != pin, START_TIMEOUT, what="the new version", interval=POLL_INTERVAL)
    assert case.condition("moved", "Pulled")["reason"] == "Pulled"
    until(
        lambda: at(case.corral.deployment("moved"), "spec", "template") != at(loaded, "spec", "template"),
        START_TIMEOUT,
        what="the new version in the Deployment",
    )
    assert case.corral.send(case.gateway, "moved", tokens=2).result(START_TIMEOUT).done is not None


def test_a_moved_tag_is_pulled_at_the_next_start_with_the_policy_on_restart(case: PullCase, tmp_path: Path) -> None:
    case.add("restarted", updatePolicy="OnRestart", keepAlive="1s")
    case.corral.send(case.gateway, "restarted", tokens=2).result(START_TIMEOUT)
    pin = case.pin("restarted")
    case.registry.push(padded_weights(write_tiny_model(tmp_path, seed=2), SIZE))
    case.corral.wait_replicas("restarted", 0)
    assert case.corral.send(case.gateway, "restarted", tokens=2).result(START_TIMEOUT).done is not None
    new = case.pin("restarted")
    assert new != pin

    case.registry.manifests.clear()
    case.corral.wait_replicas("restarted", 0)
    assert case.corral.send(case.gateway, "restarted", tokens=2).result(START_TIMEOUT).done is not None
    assert case.pin("restarted") == new
    until(lambda: "ResolveFailed" in case.events("restarted"), 15, what="the reason as an Event")


def test_without_prefetch_the_first_request_pulls_and_a_retained_claim_stays(case: PullCase) -> None:
    case.add("lazy", prefetch=False, cache={"retain": True})
    case.corral.wait_phase("lazy", "Idle")
    assert case.condition("lazy", "Pulled")["reason"] == "NotStarted"
    assert case.claim("model-lazy") is None
    assert case.corral.send(case.gateway, "lazy", tokens=2).result(START_TIMEOUT).done is not None
    case.deleted("lazy")
    until(lambda: case.corral.deployment("lazy") is None, START_TIMEOUT, what="the end of the Deployment")
    assert case.claim("model-lazy") is not None
    sent = case.registry.sent
    case.add("lazy", cache={"retain": True})
    case.wait("lazy", "Pulled", "True")
    assert case.registry.sent - sent < SIZE // 2, "only the header is read again"


def test_without_prefetch_api_pull_pulls_and_starts_no_runner(case: PullCase) -> None:
    case.add("lazy", prefetch=False)
    case.corral.wait_phase("lazy", "Idle")
    with case.gateway.client() as client:
        statuses = [progress.status or "" for progress in client.pull("lazy", stream=True)]
        assert (statuses[0], statuses[-1]) == ("pulling manifest", "success")
        assert case.condition("lazy", "Pulled")["status"] == "True"
        assert [progress.status for progress in client.pull("lazy", stream=True)][-1] == "success"
    until(lambda: not at(case.corral.model("lazy"), "status", "demand"), 15, what="the end of the demand")
    assert case.corral.replicas("lazy") == 0


def test_two_models_on_a_shared_claim_download_once(case: PullCase) -> None:
    claim = {
        "metadata": {"name": "weights"},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    case.corral.cluster.api.create(f"/api/v1/namespaces/{case.corral.namespace}/persistentvolumeclaims", claim)
    shared = {"type": "shared", "claimName": "weights"}
    for name in ("one", "two"):
        case.add(name, cache=shared)
    for name in ("one", "two"):
        case.wait(name, "Pulled", "True")
    assert case.registry.sent < 2 * SIZE
    assert case.claim("model-one") is None
    case.deleted("one")
    assert case.corral.send(case.gateway, "two", tokens=2).result(START_TIMEOUT).done is not None


def test_a_source_that_does_not_exist_fails_the_model_with_the_reason(case: PullCase) -> None:
    case.add("missing", source=case.registry.uri("unknown"))
    case.corral.wait_phase("missing", "Failed")
    assert "unknown" in str(case.condition("missing", "Ready")["message"])
    failed = httpx.post(f"{case.gateway.url}/api/generate", json={"model": "missing", "prompt": "hi"}, timeout=10)
    assert failed.status_code >= 500
    assert "unknown" in failed.text


def test_each_runner_pod_pulls_the_same_version_of_weights_in_the_pod(case: PullCase, tmp_path: Path) -> None:
    case.registry.limit = SIZE // 2
    case.add("small", cache={"type": "ephemeral"})
    case.corral.wait_phase("small", "Idle")
    assert case.condition("small", "Pulled")["reason"] == "NotStarted"
    pin = str(at(case.corral.model("small"), "status", "source", "pin"))
    with case.gateway.client() as client:
        assert client.pull("small").status == "success", "there is nothing to pull before a runner starts"
    case.move_tag(tmp_path)

    answer = case.corral.send(case.gateway, "small", tokens=4)
    case.corral.wait_phase("small", "Pulling")
    until(lambda: at(case.pull("small"), "completedBytes") or 0, START_TIMEOUT, what="progress", interval=POLL_INTERVAL)
    until(lambda: case.listed("small").get("pulling"), 15, what="the pull in the gateway's list")
    assert not answer.done()
    case.registry.go_on.set()
    first = answer.result(START_TIMEOUT).text
    case.wait("small", "Pulled", "True")
    until(lambda: {"Pulling", "Pulled"} <= set(case.events("small")), 15, what="the Events")
    assert case.claim("model-small") is None
    assert case.pod("model-small-pull") is None

    with case.gateway.client() as client:
        client.generate("small", keep_alive=0)
    case.corral.wait_gone("small")
    sent = case.registry.sent
    assert case.corral.send(case.gateway, "small", tokens=4).result(START_TIMEOUT).text == first
    assert case.registry.sent - sent >= SIZE
    assert at(case.corral.model("small"), "status", "source", "pin") == pin


def test_a_pull_in_the_pod_that_fails_fails_the_model_with_the_reason(case: PullCase, tmp_path: Path) -> None:
    case.add("gone", cache={"type": "ephemeral"})
    case.corral.wait_phase("gone", "Idle")
    case.move_tag(tmp_path, keep=False)
    answer = case.corral.send(case.gateway, "gone", tokens=4)
    case.corral.wait_phase("gone", "Failed")
    assert case.condition("gone", "Pulled")["reason"] == "PullFailed"
    with pytest.raises(ollama.ResponseError, match="does not have the pinned version"):
        answer.result(START_TIMEOUT)
