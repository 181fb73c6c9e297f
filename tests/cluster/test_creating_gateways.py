"""Models that clients create through two gateways on a real API server: one pull, one Model, its use and its end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import ollama
import pytest

from corral_server.gateway.management.names import metadata_name
from tests.cluster.api import at
from tests.cluster.fake_kubelet import ANNOTATION, FakeKubelet
from tests.cluster.fake_volumes import FakeVolumes
from tests.cluster.installation import START_TIMEOUT, Gateway, Installation
from tests.support.ollama_registry import OllamaRegistry, ollama_registry, padded_weights
from tests.support.tiny_model import write_tiny_model

pytestmark = [pytest.mark.cluster, pytest.mark.process]


@dataclass(frozen=True)
class Created:
    """Two gateways in which everyone may create Models, and a registry with the model ``name``."""

    corral: Installation
    registry: OllamaRegistry
    gateways: tuple[Gateway, Gateway]

    @property
    def name(self) -> str:
        return f"{self.registry.host}/library/tiny"

    def models(self) -> list[str]:
        path = f"/apis/corral.dev/v1alpha1/namespaces/{self.corral.namespace}/models"
        return sorted(str(at(one, "metadata", "name")) for one in self.corral.cluster.api.items(path))

    def statuses(self, gateway: Gateway, name: str) -> list[str]:
        with gateway.client() as client:
            return [progress.status or "" for progress in client.pull(name, stream=True)]


@pytest.fixture
def created(corral: Installation, fake_kubelet: FakeKubelet, tmp_path: Path) -> Iterator[Created]:
    del fake_kubelet
    volumes = FakeVolumes(corral.cluster.api)
    pod = {"annotations": {ANNOTATION: "process"}, "env": [{"name": "CORRAL_THREADS", "value": "1"}]}
    settings = {
        "CORRAL_MODELS_CREATE": "Anyone",
        "CORRAL_MODELS_NAMESPACE": corral.namespace,
        "CORRAL_MODELS_SOURCES": "*",
        "CORRAL_MODELS_PROFILES": json.dumps([{"spec": {"contextLength": 512, "parallel": 1, "pod": pod}}]),
    }
    with ollama_registry() as registry:
        registry.push(padded_weights(write_tiny_model(tmp_path), 0), params={"num_predict": 3})
        plain = [{"name": "CORRAL_PLAIN_HTTP_HOSTS", "value": registry.host}]
        corral.start_operator(CORRAL_PULLER_ENV=json.dumps(plain))
        one, other = (corral.start_gateway(name, **settings) for name in ("one", "other"))
        yield Created(corral, registry, (one, other))
    volumes.close()


def test_a_name_that_two_gateways_pull_at_once_is_one_model_that_answers_and_is_deleted(created: Created) -> None:
    with ThreadPoolExecutor(2) as pool:
        pulls = [pool.submit(created.statuses, gateway, created.name) for gateway in created.gateways]
        for pull in pulls:
            statuses = pull.result(START_TIMEOUT)
            assert (statuses[0], statuses[-1]) == ("pulling manifest", "success")
    model = metadata_name(created.name)
    assert created.models() == [model]
    for gateway in created.gateways:
        with gateway.client() as client:
            assert client.show(created.name).capabilities == ["completion"]
    with created.gateways[0].client() as client:
        assert client.generate(created.name, "Hello").eval_count == 3
        client.copy(created.name, "mine")
        assert client.create("mine", from_=created.name, system="You are brief.").status == "success"
        assert at(created.corral.model(metadata_name("mine")), "spec", "system") == "You are brief."
        client.delete("mine")
        client.delete(created.name)
        assert created.models() == []


def test_a_name_that_the_registry_does_not_have_leaves_no_model(created: Created) -> None:
    with created.gateways[0].client() as client:
        with pytest.raises(ollama.ResponseError) as error:
            client.pull(f"{created.registry.host}/library/nope")
        assert error.value.error == "pull model manifest: file does not exist"
        assert created.models() == []
