"""Conversion of Models and EndpointSlices to ModelEntry."""

from __future__ import annotations

from corral_core.base.json_fields import JsonObject, get_object
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.contracts.packed_defaults import with_source_defaults
from corral_core.contracts.source_defaults import NO_DEFAULTS
from corral_core.model.model import Model
from corral_server.gateway.directory.directory import Endpoint, ModelEntry
from corral_server.gateway.directory.kubernetes_entries import endpoints_of, entry_of, model_of
from tests.core.contracts.test_packed_defaults import BROUGHT
from tests.gateway.kube_objects import FACTS, endpoint, endpoint_slice, model


def parsed_model() -> Model:
    parsed = model_of(model())
    assert parsed is not None
    return parsed


MODEL = parsed_model()


def entry(raw: JsonObject, *slices: JsonObject) -> ModelEntry:
    parsed = model_of(raw)
    assert parsed is not None
    return entry_of(parsed, get_object(raw, "status"), slices)


def failed(message: str, **status: object) -> dict[str, object]:
    ready = {"type": "Ready", "status": "False", "message": message}
    return {"phase": "Failed", "conditions": [{"type": "Accepted", "status": "True", "message": "ok"}, ready], **status}


def test_only_endpoints_that_are_ready_and_not_terminating_are_routable() -> None:
    listed = endpoint_slice(
        endpoint("10.0.0.1"), endpoint("10.0.0.2", ready=False), endpoint("10.0.0.3", terminating=True)
    )
    found = endpoints_of([listed], MODEL, slots=4)
    own = f"{MODEL.key} {MODEL.uid}"
    assert found == (Endpoint(id="uid-10.0.0.1", host="10.0.0.1", port=8080, slots=4, model=own),)


def test_an_endpoint_in_two_slices_counts_once() -> None:
    one = endpoint_slice(endpoint("10.0.0.2"), endpoint("10.0.0.1"), name="a")
    two = endpoint_slice(endpoint("10.0.0.1"), endpoint("10.0.0.3"), name="b")
    assert [found.host for found in endpoints_of([one, two], MODEL, slots=1)] == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_a_slice_without_the_named_port_has_no_endpoints() -> None:
    assert (
        endpoints_of([{**endpoint_slice(endpoint()), "ports": [{"name": "metrics", "port": 9}]}], MODEL, slots=1) == ()
    )


def test_the_slots_reported_by_the_runner_take_precedence() -> None:
    told = entry(model(spec={"parallel": 8}, status={"placement": {"parallel": 4}}), endpoint_slice(endpoint()))
    asked = entry(model(spec={"parallel": 8}), endpoint_slice(endpoint()))
    unknown = entry(model(), endpoint_slice(endpoint()))
    assert [found.endpoints[0].slots for found in (told, asked, unknown)] == [4, 8, 1]


def test_the_context_can_grow_as_far_as_the_operator_reports_and_only_with_the_policy() -> None:
    placement: dict[str, object] = {"placement": {"contextLength": 1024, "maxContextLength": 8192}}
    grows = entry(model(spec={"contextPolicy": "Grow"}, status=placement))
    fixed = entry(model(status=placement))
    assert (grows.context_length, grows.max_context_length) == (1024, 8192)
    assert (fixed.context_length, fixed.max_context_length) == (1024, 0)
    assert entry(model(spec={"contextPolicy": "Grow"})).max_context_length == 0


def test_a_draining_model_is_not_routed_to() -> None:
    assert entry(model(status={"phase": "Draining"}), endpoint_slice(endpoint())).endpoints == ()


def test_a_model_whose_runners_are_ended_after_the_eviction_timeout_is_interrupted() -> None:
    loaded = {"type": "Loaded", "status": "False", "reason": "EvictionTimeout", "message": "did not finish"}
    assert entry(model(status={"phase": "Draining", "conditions": [loaded]})).interrupted
    assert not entry(model(status={"phase": "Draining", "conditions": [{**loaded, "reason": "Draining"}]})).interrupted


def test_an_unloaded_model_keeps_its_metadata() -> None:
    metadata = entry(model(status={"model": FACTS})).metadata
    assert metadata is not None
    assert metadata.to_json() == FACTS
    assert entry(model()).metadata is None


def test_an_unloaded_model_has_what_its_source_brings() -> None:
    metadata = with_source_defaults(ModelMetadata.from_json(FACTS), BROUGHT)
    assert entry(model(status={"model": metadata.to_json()})).defaults == BROUGHT
    assert entry(model(status={"model": FACTS})).defaults == entry(model()).defaults == NO_DEFAULTS


def test_a_failed_model_has_the_reason() -> None:
    assert entry(model(status=failed("not a GGUF"))).unavailable_reason == "not a GGUF"
    assert entry(model(status={"phase": "Loading"})).unavailable_reason is None


def test_a_newer_generation_clears_the_failure() -> None:
    assert entry(model(status=failed("not a GGUF", observedGeneration=1))).unavailable_reason is None


def test_a_suspended_model_is_unavailable() -> None:
    failure = entry(model(spec={"suspend": True}, status={"phase": "Ready"})).unavailable_reason
    assert failure is not None
    assert "suspended" in failure


def test_a_model_scaled_to_zero_by_its_spec_is_unavailable() -> None:
    failure = entry(model(spec={"replicas": 0})).unavailable_reason
    assert failure == "model 'tiny:latest' is scaled to zero by spec.replicas"
    assert entry(model(spec={"replicas": 1})).unavailable_reason is None


def test_an_invalid_or_deleted_model_is_not_served() -> None:
    deleted = model()
    metadata = deleted["metadata"]
    assert isinstance(metadata, dict)
    metadata["deletionTimestamp"] = "2026-01-02T03:05:00Z"
    assert model_of(deleted) is None
    assert model_of(model(spec={"source": "nonsense"})) is None


REMOTE: dict[str, object] = {"source": "hf://organization/model"}


def test_a_model_that_is_pulled_has_its_progress() -> None:
    pull = {"completedBytes": 43, "totalBytes": 100}
    (file,) = entry(model(spec=REMOTE, status={"phase": "Pulling", "pull": pull})).pulling or ()
    assert (file.completed, file.total, len(file.digest)) == (43, 100, 64)


def test_before_its_progress_is_known_a_pull_has_no_files() -> None:
    for phase in ("", "Pending", "Pulling", "WaitingForCapacity", "Failed"):
        assert entry(model(spec=REMOTE, status={"phase": phase})).pulling == ()


def test_a_model_whose_source_is_pulled_later_is_unpulled() -> None:
    assert entry(model(spec=REMOTE, status={"phase": "Idle"})).unpulled
    pulled = {"type": "Pulled", "status": "True"}
    assert not entry(model(spec=REMOTE, status={"phase": "Idle", "conditions": [pulled]})).unpulled
    assert not entry(model(spec=REMOTE, status={"phase": "Pulling"})).unpulled, "it is being pulled"
    assert not entry(model(spec=REMOTE, status={"phase": "Ready"})).unpulled, "an earlier version serves"
    assert not entry(model(status={"phase": "Idle"})).unpulled


def test_a_model_whose_runner_pods_pull_has_nothing_to_pull_without_them() -> None:
    spec = {**REMOTE, "cache": {"type": "ephemeral"}}
    assert not entry(model(spec=spec, status={"phase": "Idle"})).needs_pull
    assert not entry(model(spec=spec, status={"phase": "WaitingForCapacity"})).needs_pull
    assert entry(model(spec=spec, status={"phase": "Pulling"})).needs_pull


def test_a_model_without_a_pull_has_none() -> None:
    pulled = {"type": "Pulled", "status": "True"}
    assert entry(model(spec=REMOTE, status={"phase": "Failed", "conditions": [pulled]})).pulling is None
    assert entry(model(spec=REMOTE, status={"phase": "Idle"})).pulling is None, "it is pulled at the first request"
    assert entry(model(spec=REMOTE, status={"phase": "Ready"})).pulling is None, "an earlier version serves"
    assert entry(model(status={"phase": "Pending"})).pulling is None
