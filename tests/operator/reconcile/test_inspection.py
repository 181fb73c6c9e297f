"""Inspection: metadata is known before a runner starts, whatever happens to inspectors and operator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from corral_core.base.json_fields import get_object, get_objects, get_str, get_value
from corral_core.base.timestamps import parse_timestamp
from corral_core.contracts.source_resolution import RESOLVE_ANNOTATION, ResolvedPins
from corral_core.contracts.termination_message import encode_metadata
from corral_core.planning.snapshot import Decision
from corral_kube.errors import Forbidden
from corral_operator.config import RunnerDefaults
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.objects import parse_model_object
from corral_operator.reconcile.inspection import Inspection
from corral_operator.reconcile.pulling.task_pods import FIRST_EVICTED_DELAY, SILENCE_TIMEOUT
from corral_operator.report.status import model_status
from corral_operator.report.view import ModelView
from tests.operator import pull_samples, samples
from tests.operator.clock import ManualClock
from tests.operator.fake_kube import FakeKube
from tests.operator.inspector_samples import crashed, succeeded
from tests.operator.reconcile.inspection_case import InspectionCase
from tests.operator.samples import NOW


async def test_a_model_without_metadata_gets_one_inspector(case: InspectionCase) -> None:
    await case.reconcile()
    await case.reconcile()
    assert case.pods() == ["model-tiny-info"]


async def test_a_model_with_metadata_gets_none(case: InspectionCase) -> None:
    await case.reconcile(inspected=True)
    assert case.pods() == []


async def test_the_inspector_is_owned_and_restricted_and_not_selected_as_a_runner(case: InspectionCase) -> None:
    await case.reconcile(source="pvc://claim/a.gguf", pod={"nodeSelector": {"disk": "fast"}, "labels": {"team": "red"}})
    pod = case.pod()
    assert get_str(get_objects(pod, "metadata", "ownerReferences")[0], "uid") == "uid-tiny"
    assert get_value(pod, "metadata", "labels", "app.kubernetes.io/name") == "corral-inspector"
    assert get_value(pod, "metadata", "labels", "corral.dev/model") == "tiny"
    spec = get_object(pod, "spec")
    assert (spec["restartPolicy"], spec["nodeSelector"]) == ("OnFailure", {"disk": "fast"})
    assert spec["automountServiceAccountToken"] is False
    container = get_objects(spec, "containers")[0]
    assert get_value(container, "securityContext", "readOnlyRootFilesystem") is True
    assert {"name": "weights", "mountPath": "/weights", "readOnly": True} in get_objects(container, "volumeMounts")


async def test_the_inspector_stays_until_the_status_has_its_metadata(case: InspectionCase) -> None:
    await case.reconcile()
    case.set_status(succeeded(encode_metadata(samples.METADATA)))
    assert case.state.metadata("lab/tiny") == samples.METADATA
    await case.reconcile()
    assert case.pods() == ["model-tiny-info"]
    await case.reconcile(version=11, inspected=True)
    assert case.pods() == []


async def test_a_restarted_operator_uses_what_an_inspector_reported_meanwhile(case: InspectionCase) -> None:
    await case.reconcile()
    case.set_status(succeeded(encode_metadata(samples.METADATA)))
    reported = case.pod()
    case.start()
    case.state.apply(Kind.PODS, reported)
    await case.reconcile()
    assert case.state.metadata("lab/tiny") == samples.METADATA
    assert case.pods() == ["model-tiny-info"]


async def test_an_edited_source_is_inspected_again(case: InspectionCase) -> None:
    await case.reconcile(inspected=True)
    await case.reconcile(version=11, inspected=True, source="file:///other.gguf")
    assert case.state.metadata("lab/tiny") is None
    assert case.pods() == ["model-tiny-info"]


async def test_an_edit_during_the_inspection_replaces_the_inspector(case: InspectionCase) -> None:
    await case.reconcile()
    first = case.pod()
    await case.reconcile(version=11, source="file:///other.gguf")
    assert case.pods() == []
    case.state.delete(Kind.PODS, first)
    await case.reconcile(version=12, source="file:///other.gguf")
    assert "other.gguf" in str(case.pod())


async def test_metadata_of_another_source_is_not_used(case: InspectionCase) -> None:
    await case.reconcile(source="file:///other.gguf")
    case.set_status(succeeded(encode_metadata(samples.METADATA)))
    assert case.state.metadata("lab/tiny") is None


async def test_at_most_the_limit_run_at_once_and_the_next_follows(case: InspectionCase) -> None:
    case.start(limit=2)
    for name in ("a", "b", "c"):
        await case.reconcile(name, source=f"file:///{name}.gguf")
    assert case.pods() == ["model-a-info", "model-b-info"]
    assert case.requeued == []
    case.set_status(succeeded(encode_metadata(samples.METADATA)), "a")
    await case.reconcile("a", source="file:///a.gguf")
    assert case.requeued == ["lab/c"]


async def test_a_failed_inspector_does_not_block_others(case: InspectionCase) -> None:
    case.start(limit=1)
    await case.reconcile("a")
    case.set_status(crashed("there is no file"), "a")
    await case.reconcile("b", source="file:///other.gguf")
    assert case.pods() == ["model-a-info", "model-b-info"]


async def test_a_silent_inspector_blocks_others_for_a_limited_time(case: InspectionCase) -> None:
    case.start(limit=1)
    await case.reconcile("a")
    case.set_status({"phase": "Pending"}, "a")
    await case.reconcile("b", source="file:///other.gguf")
    assert case.pods() == ["model-a-info"]
    case.clock.now += SILENCE_TIMEOUT + 1
    await case.reconcile("b", source="file:///other.gguf")
    assert case.pods() == ["model-a-info", "model-b-info"]


async def test_an_evicted_inspector_is_created_again(case: InspectionCase) -> None:
    await case.reconcile()
    case.set_status({"phase": "Failed", "reason": "Evicted"})
    evicted = case.pod()
    await case.reconcile()
    assert case.pods() == []
    case.state.delete(Kind.PODS, evicted)
    case.clock.now += FIRST_EVICTED_DELAY
    await case.reconcile()
    assert case.pods() == ["model-tiny-info"]


async def test_the_planner_starts_no_runner_before_the_metadata_is_known(case: InspectionCase) -> None:
    await case.reconcile()
    assert "the header of the weights" in str(case.planned().rejection)
    await case.reconcile(version=11, inspected=True)
    assert case.planned().rejection is None


async def test_an_inspector_that_the_api_server_rejects_fails_the_model_and_is_retried(case: InspectionCase) -> None:
    case.kube.failures = [Forbidden('pods "m" is forbidden: no PriorityClass with name fast was found')]
    await case.reconcile()
    assert case.pods() == []
    failure = case.state.inspection_failures["lab/tiny"]
    assert (failure.reason, failure.phase) == ("PodRejected", "Failed")
    item = case.state.models.get("lab/tiny")
    assert item is not None
    status = model_status(ModelView(item=item, decision=Decision(0, "idle"), rejected_pod=failure), NOW)
    assert status["phase"] == "Failed"
    assert "PriorityClass with name fast" in get_str(get_objects(status, "conditions")[-1], "message")
    await case.reconcile()
    assert case.pods() == ["model-tiny-info"]
    assert case.state.inspection_failures == {}


async def test_a_polled_source_is_resolved_again_when_its_time_is_old(kube: FakeKube, clock: ManualClock) -> None:
    now = [parse_timestamp("2026-01-01T00:59:00Z") or 0.0]
    delays: list[float] = []
    state = ClusterState(clock=clock)
    inspection = Inspection(
        kube,
        state,
        RunnerDefaults(),
        limit=4,
        requeue=lambda key, delay: delays.append(delay),
        clock=clock,
        wall_clock=lambda: now[0],
    )

    async def reconcile(version: int, resolved_at: str, policy: str = "Poll") -> list[str]:
        source = replace(pull_samples.PULLED, resolved_at=resolved_at)
        raw = pull_samples.model(version=version, source=source, spec={"updatePolicy": policy})
        state.apply(Kind.MODELS, raw)
        await inspection.reconcile(parse_model_object(raw))
        return [path for path in kube.objects if "/pods/" in path]

    assert await reconcile(10, "2026-01-01T00:00:00Z") == []
    assert delays == [60.0], "the Model is reconciled when the hour is over"
    now[0] += 60
    assert await reconcile(11, "2026-01-01T00:00:00Z", policy="Pinned") == []
    (pod,) = await reconcile(12, "2026-01-01T00:00:00Z")
    assert "CORRAL_PINS" not in str(kube.objects[pod]), "its pin is not kept"
    assert await reconcile(13, "2026-01-01T00:00:00Z") == [pod]
    assert await reconcile(14, "2026-01-01T01:00:00Z") == [], "the status has the result"


@pytest.mark.parametrize(
    ("requested", "pods"),
    [
        ("2026-01-01T00:10:00Z", ["model-tiny-info"]),
        ("2026-01-01T00:00:00Z", []),  # before the last resolution
        ("2026-01-01T00:30:00Z", []),  # in the future: it would be resolved again and again until then
        ("now", []),
    ],
)
async def test_a_user_can_ask_for_the_resolution_of_a_polled_source(
    kube: FakeKube, clock: ManualClock, requested: str, pods: list[str]
) -> None:
    now, state = parse_timestamp("2026-01-01T00:20:00Z") or 0.0, ClusterState(clock=clock)
    inspection = Inspection(
        kube, state, RunnerDefaults(), limit=4, requeue=lambda *_: None, clock=clock, wall_clock=lambda: now
    )
    source = replace(pull_samples.PULLED, resolved_at="2026-01-01T00:05:00Z")
    raw = pull_samples.model(source=source, spec={"updatePolicy": "Poll"})
    raw["metadata"] = {**get_object(raw, "metadata"), "annotations": {RESOLVE_ANNOTATION: requested}}
    state.apply(Kind.MODELS, raw)
    await inspection.reconcile(parse_model_object(raw))
    assert [path.rpartition("/")[2] for path in kube.objects if "/pods/" in path] == pods


async def test_first_inspections_go_before_those_of_polled_sources(kube: FakeKube, clock: ManualClock) -> None:
    state = ClusterState(clock=clock)
    requeued: list[str] = []
    inspection = Inspection(
        kube,
        state,
        RunnerDefaults(),
        limit=1,
        requeue=lambda key, delay: requeued.append(key) if delay == 0 else None,
        clock=clock,
        wall_clock=lambda: parse_timestamp("2026-01-02T00:00:00Z") or 0.0,
    )

    async def reconcile(raw: Mapping[str, object]) -> list[str]:
        state.apply(Kind.MODELS, raw)
        await inspection.reconcile(parse_model_object(raw))
        return [path.rpartition("/")[2] for path in kube.objects if "/pods/" in path]

    def polled(name: str) -> Mapping[str, object]:
        source = replace(pull_samples.PULLED, resolved_at="2026-01-01T00:00:00Z")
        return pull_samples.model(name, source=source, spec={"updatePolicy": "Poll"})

    assert await reconcile(samples.model("a", inspected=False)) == ["model-a-info"]
    await reconcile(polled("b"))
    await reconcile(samples.model("c", inspected=False, spec={"source": "file:///other.gguf"}))
    kube.objects.clear()
    state.replace(Kind.PODS, [], "1000")
    assert await reconcile(polled("b")) == [], "another Model's first inspection is pending"
    assert requeued == ["lab/c"]
    clock.now += 10 * SILENCE_TIMEOUT
    assert await reconcile(polled("b")) == ["model-b-info"], "the other Model is not reconciled any more"


async def test_the_report_of_a_new_version_stays_until_it_is_pulled_or_the_next_poll(
    kube: FakeKube, clock: ManualClock
) -> None:
    now = [parse_timestamp("2026-01-01T01:30:00Z") or 0.0]
    state = ClusterState(clock=clock)
    inspection = Inspection(
        kube,
        state,
        RunnerDefaults(),
        limit=4,
        requeue=lambda key, delay: None,
        clock=clock,
        wall_clock=lambda: now[0],
    )
    source = replace(pull_samples.PULLED, resolved_at="2026-01-01T00:00:00Z")
    raw = pull_samples.model(source=source, spec={"updatePolicy": "Poll"})
    state.apply(Kind.MODELS, raw)
    state.apply(Kind.CLAIMS, pull_samples.claim())
    item = parse_model_object(raw)
    await inspection.reconcile(item)
    (path,) = kube.objects
    status = get_object(pull_samples.inspector(ResolvedPins(("new",), 7), finished="2026-01-01T01:31:00Z"), "status")
    ended = samples.with_metadata(kube.objects[path], resourceVersion="499")
    kube.objects[path] = {**ended, "status": status}
    state.replace(Kind.PODS, [kube.objects[path], pull_samples.puller({"running": {}})], "500")
    now[0] += 3 * 3600
    await inspection.reconcile(item)
    assert list(kube.objects) == [path], "its puller gets on"
    crashed_puller = pull_samples.puller({"waiting": {}}, last=pull_samples.failed("PullFailed: denied"), version=501)
    state.apply(Kind.PODS, crashed_puller)
    await inspection.reconcile(item)
    assert list(kube.objects) == [], "another version may follow"
    state.replace(Kind.PODS, [crashed_puller], "600")
    await inspection.reconcile(item)
    assert list(kube.objects) == [path]
