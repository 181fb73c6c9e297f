"""What the API server says of a Model, as the gateway's Entry."""

from __future__ import annotations

from corral_core.jsonfields import Json, mapping
from corral_server.gateway.directory import Endpoint, Entry
from corral_server.gateway.kube.entries import endpoints_of, entry_of, model_of
from tests.gateway.kube_objects import FACTS, endpoint, endpoint_slice, model


def entry(raw: Json, *slices: Json) -> Entry:
    parsed = model_of(raw)
    assert parsed is not None
    return entry_of(parsed, mapping(raw, "status"), slices)


def failed(message: str, **status: object) -> dict[str, object]:
    ready = {"type": "Ready", "status": "False", "message": message}
    return {"phase": "Failed", "conditions": [{"type": "Accepted", "status": "True", "message": "ok"}, ready], **status}


def test_only_endpoints_that_are_ready_and_not_terminating_are_routable() -> None:
    listed = endpoint_slice(
        endpoint("10.0.0.1"), endpoint("10.0.0.2", ready=False), endpoint("10.0.0.3", terminating=True)
    )
    assert endpoints_of([listed], 4) == (Endpoint(id="uid-10.0.0.1", host="10.0.0.1", port=8080, slots=4),)


def test_several_slices_are_joined_and_a_pod_in_two_of_them_counts_once() -> None:
    one = endpoint_slice(endpoint("10.0.0.2"), endpoint("10.0.0.1"), name="a")
    two = endpoint_slice(endpoint("10.0.0.1"), endpoint("10.0.0.3"), name="b")
    assert [found.host for found in endpoints_of([one, two], 1)] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_a_slice_without_the_named_port_has_no_endpoints() -> None:
    assert endpoints_of([{**endpoint_slice(endpoint()), "ports": [{"name": "metrics", "port": 9}]}], 1) == ()


def test_the_runners_word_on_slots_goes_before_the_models() -> None:
    told = entry(model(spec={"parallel": 8}, status={"placement": {"parallel": 4}}), endpoint_slice(endpoint()))
    asked = entry(model(spec={"parallel": 8}), endpoint_slice(endpoint()))
    unknown = entry(model(), endpoint_slice(endpoint()))
    assert [found.endpoints[0].slots for found in (told, asked, unknown)] == [4, 8, 1]


def test_a_draining_model_is_not_routed_to() -> None:
    assert entry(model(status={"phase": "Draining"}), endpoint_slice(endpoint())).endpoints == ()


def test_a_cold_model_has_the_facts_that_its_last_runner_told() -> None:
    facts = entry(model(status={"model": FACTS})).facts
    assert facts is not None
    assert facts.to_json() == FACTS
    assert entry(model()).facts is None


def test_a_failed_model_carries_the_reason() -> None:
    assert entry(model(status=failed("not a GGUF"))).failure == "not a GGUF"
    assert entry(model(status={"phase": "Loading"})).failure is None


def test_an_edit_that_the_operator_has_not_seen_yet_clears_the_failure() -> None:
    assert entry(model(status=failed("not a GGUF", observedGeneration=1))).failure is None


def test_a_suspended_model_says_so_at_once() -> None:
    failure = entry(model(spec={"suspend": True}, status={"phase": "Ready"})).failure
    assert failure is not None
    assert "suspended" in failure


def test_a_model_that_somebody_scaled_to_zero_says_so_instead_of_keeping_requests_waiting() -> None:
    failure = entry(model(spec={"replicas": 0})).failure
    assert failure == "model 'tiny:latest' is scaled to zero by spec.replicas"
    assert entry(model(spec={"replicas": 1})).failure is None


def test_an_invalid_model_or_one_that_is_being_deleted_is_not_served() -> None:
    deleted = model()
    metadata = deleted["metadata"]
    assert isinstance(metadata, dict)
    metadata["deletionTimestamp"] = "2026-01-02T03:05:00Z"
    assert model_of(deleted) is None
    assert model_of(model(spec={"source": "nonsense"})) is None
