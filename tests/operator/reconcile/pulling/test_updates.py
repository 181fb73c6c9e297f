"""New versions of pulled sources: pulled beside the present one, which stays until they are."""

from __future__ import annotations

from dataclasses import replace

from corral_core.base.json_fields import get_object, get_objects, get_str, get_value
from corral_core.contracts.pull_status import encode_pulled
from corral_core.contracts.source_resolution import ResolvedPins
from corral_core.sources.snapshot import snapshot_id
from corral_kube.errors import Forbidden
from corral_operator.observe.cluster_state import Kind
from tests.operator import pull_samples
from tests.operator.reconcile.pulling.pull_case import CLAIM, PullCase

POLLED = replace(pull_samples.PULLED, resolved_at="2026-01-01T00:00:00Z")
NEWS = pull_samples.inspector(ResolvedPins(("another",), 3 * 1024**3), finished="2026-01-01T01:00:00Z")


async def poll_with_news(case: PullCase) -> None:
    """Reconcile a pulled Model without runners after a resolver has found a new version of 3 GiB."""
    case.state.apply(Kind.CLAIMS, pull_samples.claim())
    case.kube.objects[CLAIM] = dict(pull_samples.claim())
    case.state.apply(Kind.PODS, NEWS)
    await case.reconcile(source=POLLED, updatePolicy="Poll")


async def test_a_new_version_is_pulled_beside_the_pulled_one_which_stays(case: PullCase) -> None:
    await poll_with_news(case)
    found = {get_str(one, "name"): get_str(one, "value") for one in get_objects(case.container(), "env")}
    assert '"another"' in found["CORRAL_PULL"]
    assert found["CORRAL_KEEP_SNAPSHOTS"] == pull_samples.SNAPSHOT
    claim = case.kube.objects[CLAIM]
    assert get_value(claim, "spec", "resources", "requests", "storage") == "4349Mi", "room for both versions"
    assert case.state.source("lab/tiny") == POLLED


async def test_a_claim_that_cannot_grow_for_a_new_version_leaves_the_model_pulled(case: PullCase) -> None:
    case.kube.failures = [Forbidden("exceeded quota: storage")]
    await poll_with_news(case)
    assert case.state.pull_failures["lab/tiny"].reason == "QuotaExceeded"
    assert case.objects("pods") == []
    assert case.state.pulled("lab/tiny")


async def test_a_new_version_waits_for_a_request_without_prefetch(case: PullCase) -> None:
    case.state.apply(Kind.CLAIMS, pull_samples.claim())
    case.state.apply(Kind.PODS, NEWS)
    await case.reconcile(wanted=False, source=POLLED, updatePolicy="Poll", prefetch=False)
    assert case.objects("pods") == []


async def test_the_puller_of_a_new_version_stays_until_the_status_has_its_snapshots(case: PullCase) -> None:
    await poll_with_news(case)
    snapshot = snapshot_id(pull_samples.SOURCE, "another")
    case.set_status(get_object(pull_samples.finished(message=encode_pulled([snapshot])), "status"))
    await case.reconcile(source=POLLED, updatePolicy="Poll")
    assert case.objects("pods") == ["model-tiny-pull"]
    adopted = case.state.source("lab/tiny")
    assert adopted is not None
    assert adopted.snapshots == {pull_samples.SOURCE: snapshot}
    await case.reconcile(source=adopted, updatePolicy="Poll")
    assert case.objects("pods") == []
