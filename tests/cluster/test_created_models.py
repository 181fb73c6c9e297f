"""Models that clients create by Ollama's API, with API keys and the permissions that the chart grants the gateways."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import yaml

from corral_core.contracts.api_keys import generate_key
from tests.cluster.api import MODELS, Object, at
from tests.cluster.cluster import Cluster
from tests.cluster.fake_kubelet import ANNOTATION
from tests.cluster.fake_volumes import FakeVolumes
from tests.cluster.helm import NAMESPACE, RELEASE, Helm, rendered
from tests.cluster.installation import START_TIMEOUT, Gateway, Installation
from tests.pull.servers.registry import docker_registry
from tests.support.ollama_registry import OllamaRegistry, ollama_registry
from tests.support.tiny_model import write_tiny_model
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]

ACCOUNT = f"{RELEASE}-corral-gateway"
POD = {"annotations": {ANNOTATION: "process"}, "env": [{"name": "CORRAL_THREADS", "value": "1"}]}
OWNERS = ("a", "b", "reader")
PROFILES = [{"spec": {"contextLength": 256, "keepAlive": "10m", "pod": POD}}]


@dataclass
class Case:
    """Two namespaces and a registry of models. ``keys`` are keys and their digests; ``b`` is of ``other``."""

    corral: Installation
    other: str
    registry: OllamaRegistry
    account: Path
    folder: Path
    keys: dict[str, tuple[str, str]] = field(default_factory=lambda: {name: generate_key() for name in OWNERS})

    def start_gateway(self, name: str = "gateway", **settings: str) -> Gateway:
        """Start a gateway with the service account of the chart."""
        entries = []
        for owner, (_, digest) in self.keys.items():
            namespace = self.other if owner == "b" else self.corral.namespace
            entry = {"name": owner, "sha256": digest, "namespaces": [namespace], "createModels": owner != "reader"}
            entries.append(entry)
        path = self.folder / "keys.yaml"
        path.write_text(yaml.safe_dump({"keys": entries}))
        given = {
            "KUBECONFIG": str(self.account),
            "CORRAL_WATCH_NAMESPACES": f"{self.corral.namespace},{self.other}",
            "CORRAL_API_KEYS_FILE": str(path),
            "CORRAL_MODELS_SOURCES": f"ollama://{self.registry.host}/*",
            "CORRAL_MODELS_PROFILES": json.dumps(PROFILES),
        }
        return self.corral.start_gateway(name, **given | settings)

    @contextmanager
    def client(self, gateway: Gateway, key: str) -> Iterator[httpx.Client]:
        headers = {"authorization": f"Bearer {self.keys[key][0]}"}
        with httpx.Client(base_url=gateway.url, headers=headers, timeout=START_TIMEOUT, trust_env=False) as client:
            yield client

    def models(self, namespace: str) -> list[Object]:
        return self.corral.cluster.api.items(f"{MODELS}/namespaces/{namespace}/models")

    def name(self, model: str = "tiny") -> str:
        return f"{self.registry.host}/library/{model}"


@pytest.fixture
def other(cluster: Cluster) -> Iterator[str]:
    with cluster.namespace() as name:
        yield name


@pytest.fixture
def account(cluster: Cluster, corral: Installation, helm: Helm, other: str, tmp_path: Path) -> Iterator[Path]:
    """Create the gateways' account with its roles; return a kubeconfig of it."""
    values = {"watchNamespaces": [corral.namespace, other], "gateway": {"apiKeys": {"secret": "keys"}}}
    made = [
        each
        for each in rendered(helm, values)
        if each["kind"] in ("ServiceAccount", "Role", "RoleBinding")
        and str(at(each, "metadata", "name")).startswith(ACCOUNT)
    ]
    text = "\n---\n".join(json.dumps(each) for each in made)
    cluster.kubectl("apply", "--server-side", "-f", "-", input=text)
    token = cluster.kubectl("-n", NAMESPACE, "create", "token", ACCOUNT).stdout.strip()
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    config["users"] = [{"name": config["contexts"][0]["context"]["user"], "user": {"token": token}}]
    path = tmp_path / "gateway.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    yield path
    cluster.kubectl("delete", "--wait=false", "-f", "-", input=text)


@pytest.fixture
def case(corral: Installation, other: str, account: Path, tmp_path: Path) -> Iterator[Case]:
    with ollama_registry() as registry:
        registry.push(write_tiny_model(tmp_path).read_bytes())
        yield Case(corral, other, registry, account, tmp_path)


@pytest.fixture
def volumes(corral: Installation) -> Iterator[FakeVolumes]:
    made = FakeVolumes(corral.cluster.api)
    yield made
    made.close()


def start_operator(case: Case, *plain_hosts: str) -> None:
    plain = [{"name": "CORRAL_PLAIN_HTTP_HOSTS", "value": ",".join(plain_hosts)}]
    watched = f"{case.corral.namespace},{case.other}"
    case.corral.start_operator(CORRAL_PULLER_ENV=json.dumps(plain), CORRAL_WATCH_NAMESPACES=watched)


def lines(response: httpx.Response) -> list[Object]:
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def generate(client: httpx.Client, model: str) -> httpx.Response:
    options = {"num_predict": 2, "seed": 1}
    return client.post("/api/generate", json={"model": model, "prompt": "a", "stream": False, "options": options})


@pytest.mark.usefixtures("volumes")
def test_a_pull_of_a_new_name_makes_a_model_of_the_keys_namespace_alone(case: Case) -> None:
    start_operator(case, case.registry.host)
    gateway = case.start_gateway()
    with case.client(gateway, "a") as client, case.client(gateway, "b") as stranger:
        assert lines(client.post("/api/pull", json={"model": case.name()}))[-1] == {"status": "success"}
        [made] = case.models(case.corral.namespace)
        assert at(made, "metadata", "labels", "corral.dev/created-by") == "api"
        assert at(made, "spec", "contextLength") == 256, "the profile's"
        assert case.models(case.other) == []
        answer = generate(client, case.name())
        assert answer.status_code == 200, answer.text

        assert generate(stranger, case.name()).status_code == 404
        assert stranger.request("DELETE", "/api/delete", json={"model": case.name()}).status_code == 404
        other_name = f"{case.corral.namespace}/{at(made, 'metadata', 'name')}"
        assert stranger.request("DELETE", "/api/delete", json={"model": other_name}).status_code in (403, 404)
        with case.client(gateway, "reader") as reader:
            refused = reader.request("DELETE", "/api/delete", json={"model": case.name()})
            assert (refused.status_code, "may not create or change" in refused.text) == (403, True)
        assert len(case.models(case.corral.namespace)) == 1

        assert client.request("DELETE", "/api/delete", json={"model": case.name()}).status_code == 200
    assert case.models(case.corral.namespace) == []
    claims = f"/api/v1/namespaces/{case.corral.namespace}/persistentvolumeclaims"
    until(lambda: not case.corral.cluster.api.items(claims), START_TIMEOUT, what="the end of the claim")


def test_what_policy_and_quota_forbid_is_refused_with_the_reason(case: Case, cluster: Cluster) -> None:
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "models"}}
    quota["spec"] = {"hard": {"count/models.corral.dev": "0"}}
    cluster.kubectl("-n", case.other, "apply", "-f", "-", input=json.dumps(quota))
    path = f"/api/v1/namespaces/{case.other}/resourcequotas/models"
    until(lambda: at(cluster.api.get(path), "status", "hard"), 60, what="the quota")
    gateway = case.start_gateway()
    with case.client(gateway, "b") as client:
        refused = client.post("/api/pull", json={"model": case.name()})
        assert (refused.status_code, "exceeded quota: models" in refused.text) == (403, True), refused.text
        refused = client.post("/api/pull", json={"model": "registry.example/library/tiny"})
        assert (refused.status_code, "models.sources" in refused.text) == (403, True), refused.text
    never = case.start_gateway("never", CORRAL_MODELS_CREATE="Never")
    with case.client(never, "a") as client:
        refused = client.post("/api/pull", json={"model": case.name()})
        assert (refused.status_code, "models.create" in refused.text) == (403, True), refused.text
    assert [*case.models(case.corral.namespace), *case.models(case.other)] == []


@pytest.mark.usefixtures("volumes")
def test_a_file_that_a_client_uploads_is_a_model_by_the_registry_of_blobs(case: Case) -> None:
    weights = write_tiny_model(case.folder, seed=3).read_bytes()
    digest = f"sha256:{hashlib.sha256(weights).hexdigest()}"
    with docker_registry(case.folder) as blobs:
        start_operator(case, blobs.host)
        repository = {"CORRAL_BLOBS_REPOSITORY": f"http://{blobs.host}/corral/blobs"}
        first, second = case.start_gateway(**repository), case.start_gateway("second", **repository)
        with case.client(first, "a") as client:
            assert client.head(f"/api/blobs/{digest}").status_code == 404
            assert client.post(f"/api/blobs/{digest}", content=weights).status_code == 201
        with case.client(second, "a") as client:
            assert client.head(f"/api/blobs/{digest}").status_code == 200
            body = {"model": "mine", "files": {"tiny.gguf": digest}}
            assert lines(client.post("/api/create", json=body))[-1] == {"status": "success"}
            answer = generate(client, "mine")
            assert answer.status_code == 200, answer.text
