"""What is known of remote sources: from the status, from an inspector and from a puller."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.base.json_fields import JsonObject
from corral_core.contracts.pull_status import encode_pulled
from corral_core.contracts.source_resolution import ResolvedPins
from corral_core.sources.snapshot import snapshot_id
from corral_operator.observe.cluster_state import ClusterState, Kind
from tests.operator import pull_samples as samples

KEY = "lab/tiny"


def state_of(model: JsonObject, *pods: JsonObject, claim: JsonObject | None = None) -> ClusterState:
    state = ClusterState()
    state.apply(Kind.MODELS, model)
    for pod in pods:
        state.apply(Kind.PODS, pod)
    if claim is not None:
        state.apply(Kind.CLAIMS, claim)
    return state


def test_a_resolver_makes_metadata_and_pins_known() -> None:
    state = state_of(samples.model(source=None), samples.inspector())
    assert state.metadata(KEY) == samples.METADATA
    assert state.source(KEY) == samples.RESOLVED
    assert not state.pulled(KEY)


def test_a_resolver_with_another_number_of_pins_is_not_used() -> None:
    state = state_of(samples.model(source=None), samples.inspector(ResolvedPins((), 1)))
    assert state.source(KEY) is None


def test_the_snapshots_of_a_finished_puller_count_at_once() -> None:
    state = state_of(samples.model(), samples.finished(), claim=samples.claim())
    assert state.source(KEY) == samples.PULLED
    assert state.pulled(KEY)


def test_other_snapshots_than_those_of_the_pins_do_not_count() -> None:
    state = state_of(samples.model(), samples.finished(message=encode_pulled(["0" * 32])), claim=samples.claim())
    assert not state.pulled(KEY)


@pytest.mark.parametrize("claim", [None, samples.claim(uid="another")])
def test_snapshots_of_a_claim_that_is_gone_must_be_pulled_again(claim: JsonObject | None) -> None:
    state = state_of(samples.model(source=samples.PULLED), claim=claim)
    assert state.source(KEY) == samples.RESOLVED
    assert state_of(samples.model(source=samples.PULLED), claim=samples.claim()).pulled(KEY)


def test_a_shared_claim_is_not_observed() -> None:
    shared = replace(samples.PULLED, claim="weights", claim_uid="")
    cache = {"type": "shared", "claimName": "weights"}
    assert state_of(samples.model(source=shared, spec={"cache": cache})).pulled(KEY)
    moved = {"type": "shared", "claimName": "others"}
    assert not state_of(samples.model(source=shared, spec={"cache": moved})).pulled(KEY)


def test_an_edited_source_is_neither_inspected_nor_pulled() -> None:
    raw = samples.model(source=samples.PULLED)
    edited = {**raw, "spec": {"source": "hf://organization/other"}}
    state = state_of(edited, claim=samples.claim())
    item = state.models.get(KEY)
    assert item is not None
    assert (item.inspected, item.resolved, state.source(KEY), state.pulled(KEY)) == (False, False, None, False)


def test_an_adapter_that_is_added_must_be_resolved() -> None:
    adapters = [{"name": "one", "source": "https://files.example/lora.gguf"}]
    state = state_of(samples.model(source=samples.PULLED, spec={"adapters": adapters}), claim=samples.claim())
    assert state.source(KEY) is None


def test_a_model_with_local_sources_has_nothing_to_pull() -> None:
    state = state_of({**samples.model(), "spec": {"source": "file:///weights.gguf"}})
    assert (state.source(KEY), state.pulled(KEY)) == (None, True)


KNOWN = replace(samples.PULLED, resolved_at="2026-01-01T00:00:00Z")
LARGER = replace(samples.METADATA, parameter_count=7)


def polled(pin: str, finished: str, *pods: JsonObject, policy: str = "Poll", uid: str = "uid-claim") -> ClusterState:
    """Return the state of a pulled Model after a resolver has reported this pin at this time."""
    raw = samples.model(source=KNOWN, spec={"updatePolicy": policy})
    resolver = samples.inspector(ResolvedPins((pin,), 7), finished=finished, metadata=LARGER)
    return state_of(raw, resolver, *pods, claim=samples.claim(uid=uid))


def test_a_poll_that_finds_the_same_version_changes_the_time_alone() -> None:
    state = polled(samples.PIN, "2026-01-01T01:00:00Z")
    assert state.source(KEY) == replace(samples.PULLED, resolved_at="2026-01-01T01:00:00Z")


def test_a_poll_that_finds_the_same_version_keeps_what_a_runner_has_reported() -> None:
    complete = replace(samples.METADATA, template="{{ messages }}")
    known = replace(samples.PULLED, resolved_at="2026-01-01T00:00:00Z")
    raw = samples.model(source=known, status={"model": complete.to_json()}, spec={"updatePolicy": "Poll"})
    for pin, expected in ((samples.PIN, complete), ("another", samples.METADATA)):
        resolver = samples.inspector(ResolvedPins((pin,), 7), finished="2026-01-01T01:00:00Z")
        assert state_of(raw, resolver).metadata(KEY) == expected


def test_the_pulled_version_counts_until_the_new_one_is_pulled() -> None:
    state = polled("another", "2026-01-01T01:00:00Z")
    assert (state.source(KEY), state.pulled(KEY), state.metadata(KEY)) == (KNOWN, True, samples.METADATA)
    update = state.update(KEY)
    assert update is not None
    assert (update.pins, update.snapshots, update.total) == ({samples.SOURCE: "another"}, {}, 7)


def test_the_new_version_counts_when_its_puller_has_ended() -> None:
    snapshot = snapshot_id(samples.SOURCE, "another")
    state = polled("another", "2026-01-01T01:00:00Z", samples.finished(message=encode_pulled([snapshot])))
    found = state.source(KEY)
    assert found is not None
    assert (found.pins, found.snapshots) == ({samples.SOURCE: "another"}, {samples.SOURCE: snapshot})
    assert (state.update(KEY), state.metadata(KEY)) == (None, LARGER)


def test_the_new_version_is_pulled_in_place_of_one_whose_claim_is_gone() -> None:
    state = polled("another", "2026-01-01T01:00:00Z", uid="uid-created-again")
    found = state.source(KEY)
    assert found is not None
    assert (found.pins, state.pulled(KEY), state.update(KEY)) == ({samples.SOURCE: "another"}, False, None)


@pytest.mark.parametrize(("finished", "policy"), [("2026-01-01T00:00:00Z", "Poll"), ("2026-01-01T01:00:00Z", "Pinned")])
def test_a_report_that_is_recorded_already_or_not_asked_for_changes_nothing(finished: str, policy: str) -> None:
    found = polled("another", finished, policy=policy).source(KEY)
    assert found is not None
    assert found.pins == samples.RESOLVED.pins


def test_weights_in_the_pod_are_known_once_they_are_resolved() -> None:
    assert not state_of(samples.model(source=None, spec=samples.EPHEMERAL)).pulled(KEY)
    state = state_of(samples.model(source=None, spec=samples.EPHEMERAL), samples.inspector())
    assert state.source(KEY) == samples.RESOLVED
    assert state.pulled(KEY), "a runner pod can start"


def test_what_an_earlier_claim_has_does_not_count_for_weights_in_the_pod() -> None:
    state = state_of(samples.model(source=samples.PULLED, spec=samples.EPHEMERAL), claim=samples.claim())
    assert state.source(KEY) == samples.RESOLVED


def test_a_poll_changes_the_pins_of_weights_in_the_pod() -> None:
    known = replace(samples.RESOLVED, resolved_at="2026-01-01T00:00:00Z")
    raw = samples.model(source=known, spec={"updatePolicy": "Poll", **samples.EPHEMERAL})
    state = state_of(raw, samples.inspector(ResolvedPins(("another",), 7), finished="2026-01-01T01:00:00Z"))
    found = state.source(KEY)
    assert found is not None
    assert found.pins == {samples.SOURCE: "another"}
