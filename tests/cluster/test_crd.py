"""The CRD on a real API server: validation and its messages, defaults, printer columns and subresources."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from corral_core.base.json_fields import get_object, get_objects
from corral_core.contracts.model_metadata import ModelDimensions, ModelMetadata
from corral_core.model.resource import parse_model
from tests.cluster.api import APPLY, ApiError, Object, at
from tests.cluster.cluster import Cluster
from tests.core.bad_models import BAD
from tests.core.model_cases import GOOD, SOURCE, Bad, Good, document

pytestmark = pytest.mark.cluster


def _dry_run(cluster: Cluster, case: Good | Bad) -> Object:
    path = "/apis/corral.dev/v1alpha1/namespaces/default/models"
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    return cluster.api.request("POST", path, body=document(case), query=query)


def _create(cluster: Cluster, namespace: str, **spec: object) -> Object:
    case = Good("created", {"source": SOURCE, **spec})
    return cluster.api.create(f"/apis/corral.dev/v1alpha1/namespaces/{namespace}/models", document(case))


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.id)
def test_the_api_server_accepts_what_the_parser_accepts(cluster: Cluster, case: Good) -> None:
    stored = _dry_run(cluster, case)
    assert parse_model(stored).spec == parse_model(document(case)).spec


@pytest.mark.parametrize("case", [case for case in BAD if case.server], ids=lambda case: case.id)
def test_the_api_server_rejects_what_the_parser_rejects(cluster: Cluster, case: Bad) -> None:
    with pytest.raises(ApiError) as rejected:
        _dry_run(cluster, case)
    assert rejected.value.status in (400, 422)
    assert case.server is not None
    assert case.server in str(rejected.value)


@pytest.mark.parametrize("case", [case for case in BAD if case.server is None], ids=lambda case: case.id)
def test_rules_that_a_schema_cannot_express_are_checked_by_the_parser_alone(cluster: Cluster, case: Bad) -> None:
    assert at(_dry_run(cluster, case), "kind") == "Model"


def test_defaults_are_filled_in(cluster: Cluster) -> None:
    stored = _dry_run(cluster, Good("only a source", {"source": SOURCE}))
    assert at(stored, "spec") == {
        "source": SOURCE,
        "cache": {"type": "claim", "accessModes": ["ReadWriteOnce"], "retain": False},
        "prefetch": True,
        "updatePolicy": "Pinned",
        "contextLength": "auto",
        "contextPolicy": "Fixed",
        "parallel": "auto",
        "embeddings": False,
        "minReplicas": 0,
        "maxReplicas": 1,
        "gpu": {
            "count": "auto",
            "offload": "auto",
            "sharing": "exclusive",
            "splitMode": "layer",
            "mainGPU": 0,
            "expertLayersOnCPU": 0,
        },
        "suspend": False,
    }


def test_an_object_without_a_spec_is_rejected(cluster: Cluster) -> None:
    body = {"apiVersion": "corral.dev/v1alpha1", "kind": "Model", "metadata": {"name": "tiny"}}
    with pytest.raises(ApiError, match="spec: Required value"):
        cluster.api.create("/apis/corral.dev/v1alpha1/namespaces/default/models", body)


def test_the_example_is_accepted(cluster: Cluster) -> None:
    example = Path(__file__).parents[2] / "examples" / "smollm2.yaml"
    cluster.kubectl("-n", "default", "create", "--dry-run=server", "-f", str(example))


def test_scaling_sets_replicas_and_nothing_else(cluster: Cluster, namespace: str) -> None:
    before = _create(cluster, namespace)
    cluster.kubectl("-n", namespace, "scale", "model/tiny", "--replicas=0")
    after = cluster.api.get(f"/apis/corral.dev/v1alpha1/namespaces/{namespace}/models/tiny")
    assert at(after, "spec", "replicas") == 0
    assert {**_spec(after), "replicas": 0} == {**_spec(before), "replicas": 0}


def test_scaling_beyond_max_replicas_is_rejected_with_the_reason(cluster: Cluster, namespace: str) -> None:
    _create(cluster, namespace)
    done = cluster.kubectl("-n", namespace, "scale", "mdl/tiny", "--replicas=3", check=False)
    assert done.returncode != 0
    assert "replicas must be at most maxReplicas" in done.stderr


def test_the_scale_subresource_has_replicas_and_selector(cluster: Cluster, namespace: str) -> None:
    _create(cluster, namespace, replicas=1)
    path = f"/apis/corral.dev/v1alpha1/namespaces/{namespace}/models/tiny"
    status = {"replicas": 1, "selector": "corral.dev/model=tiny"}
    cluster.api.patch(f"{path}/status", {"status": status})
    scale = cluster.api.get(f"{path}/scale")
    assert (at(scale, "spec", "replicas"), at(scale, "status")) == (1, status)


def test_a_write_to_the_object_does_not_change_the_status(cluster: Cluster, namespace: str) -> None:
    _create(cluster, namespace)
    path = f"/apis/corral.dev/v1alpha1/namespaces/{namespace}/models/tiny"
    assert at(cluster.api.patch(path, {"status": {"phase": "Idle"}}), "status") is None


def test_kubectl_get_shows_the_columns(cluster: Cluster, namespace: str) -> None:
    _create(cluster, namespace)
    path = f"/apis/corral.dev/v1alpha1/namespaces/{namespace}/models/tiny/status"
    ready = {"type": "Ready", "status": "True", "reason": "Idle", "lastTransitionTime": "2026-01-31T12:00:00Z"}
    idle_since = datetime.now(UTC) - timedelta(minutes=90, seconds=30)
    status = {
        "phase": "Idle",
        "replicas": 0,
        "pending": 3,
        "columns": {"replicas": "0/1", "size": "98 MB", "pulled": "43%"},
        "placement": {"gpus": 2, "vramBytes": 1234},
        "expiresAt": "2026-01-31T12:05:00Z",
        "idleSince": idle_since.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "keepAlive": "5m0s",
        "model": {"size": 98362432},
        "conditions": [{**ready, "message": "no pending requests"}],
    }
    cluster.api.patch(path, {"status": status})
    narrow = cluster.kubectl("-n", namespace, "get", "models").stdout.splitlines()
    header = "NAME READY PHASE PULLED REPLICAS PENDING GPUS IDLE KEEP-ALIVE SIZE AGE"
    assert narrow[0].split() == header.split()
    assert narrow[1].split()[:-1] == ["tiny", "True", "Idle", "43%", "0/1", "3", "2", "90m", "5m0s", "98", "MB"]
    wide = cluster.kubectl("-n", namespace, "get", "mdl", "-o", "wide").stdout
    assert wide.splitlines()[0].split()[-4:] == ["VRAM", "UNTIL", "SOURCE", "REASON"]
    assert "2026-01-31T12:05:00Z" in wide
    assert "no pending requests" in wide


def test_an_unknown_phase_is_rejected(cluster: Cluster, namespace: str) -> None:
    _create(cluster, namespace)
    path = f"/apis/corral.dev/v1alpha1/namespaces/{namespace}/models/tiny/status"
    with pytest.raises(ApiError, match="Unsupported value"):
        cluster.api.patch(path, {"status": {"phase": "Sleepy"}})


def test_the_metadata_of_a_model_is_stored_completely(cluster: Cluster, namespace: str) -> None:
    _create(cluster, namespace)
    header = {"general.architecture": "llama", "tokenizer.ggml.tokens": None, "llama.rope.freq_base": 1e5}
    metadata = ModelMetadata(1, "llama", ("llama",), "1B", 10**12, "Q4_0", 1, 1, ("completion",), "{{ a }}", header)
    metadata = dataclasses.replace(
        metadata, dimensions=ModelDimensions(10**12, layers=32, keys=4096), source="file:///a", sha256="0" * 64
    )
    path = f"/apis/corral.dev/v1alpha1/namespaces/{namespace}/models/tiny/status"
    body = {
        "apiVersion": "corral.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "tiny"},
        "status": {"model": metadata.to_json()},
    }
    query = {"fieldManager": "corral-operator", "force": "true"}
    stored = cluster.api.request("PATCH", path, body=body, query=query, content=APPLY)
    assert ModelMetadata.from_json(get_object(stored, "status", "model")) == metadata


def test_each_gateway_owns_its_demand(cluster: Cluster, namespace: str) -> None:
    _create(cluster, namespace)
    _demand(cluster, namespace, "one", waiting=1)
    _demand(cluster, namespace, "two", waiting=2)
    stored = _demand(cluster, namespace, "one", waiting=0)
    assert [entry.get("gateway") for entry in get_objects(stored, "status", "demand")] == ["two"]


def _demand(cluster: Cluster, namespace: str, gateway: str, *, waiting: int) -> Object:
    """Apply one gateway's entry, or none for ``waiting`` 0, by server-side apply."""
    time = "2026-01-31T12:00:00.000000Z"
    entry = {"gateway": gateway, "waiting": waiting, "oldest": time, "renewed": time}
    body = {
        "apiVersion": "corral.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": "tiny"},
        "status": {"demand": [entry]} if waiting else {},
    }
    path = f"/apis/corral.dev/v1alpha1/namespaces/{namespace}/models/tiny/status"
    query = {"fieldManager": f"corral-gateway-{gateway}", "force": "true"}
    return cluster.api.request("PATCH", path, body=body, query=query, content=APPLY)


def _spec(model: Object) -> Mapping[str, object]:
    return get_object(model, "spec")
