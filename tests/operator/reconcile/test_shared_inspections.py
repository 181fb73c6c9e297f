"""Shared inspections: Models whose inspectors would read the same have one inspector."""

from __future__ import annotations

from corral_core.contracts.source_resolution import ResolvedPins
from corral_core.contracts.termination_message import encode_metadata
from corral_operator.reconcile.shared_inspections import LATEST, LONGEST_WAIT
from tests.operator import pull_samples, samples
from tests.operator.inspector_samples import crashed, succeeded
from tests.operator.reconcile.inspection_case import InspectionCase

REPORT = succeeded(encode_metadata(samples.METADATA))


async def test_models_of_one_content_share_an_inspector(case: InspectionCase) -> None:
    for name in ("a", "b", "c"):
        await case.reconcile(name, names=[f"{name}:latest"])
    assert case.pods() == ["model-a-info"]
    case.set_status(REPORT, "a")
    await case.reconcile("a", names=["a:latest"])
    assert case.requeued == ["lab/b", "lab/c"]
    await case.reconcile("b", names=["b:latest"])
    assert case.state.metadata("lab/b") == samples.METADATA
    assert case.pods() == ["model-a-info"]


async def test_a_model_that_is_created_right_after_the_report_needs_no_inspector(case: InspectionCase) -> None:
    await case.reconcile("a")
    case.set_status(REPORT, "a")
    await case.reconcile("a")
    await case.reconcile("a", version=11, inspected=True)
    await case.reconcile("late")
    assert case.state.metadata("lab/late") == samples.METADATA
    assert case.pods() == []


async def test_a_model_that_is_created_later_is_inspected_itself(case: InspectionCase) -> None:
    await case.reconcile("a")
    case.set_status(REPORT, "a")
    await case.reconcile("a")
    await case.reconcile("a", version=11, inspected=True)
    case.clock.now += LATEST + 1
    await case.reconcile("late")
    assert case.pods() == ["model-late-info"]


async def test_a_waiting_model_uses_the_report_however_long_its_reconciliation_takes(case: InspectionCase) -> None:
    await case.reconcile("a")
    await case.reconcile("b")
    case.set_status(REPORT, "a")
    await case.reconcile("a")
    case.clock.now += 10 * LATEST
    await case.reconcile("b")
    assert case.state.metadata("lab/b") == samples.METADATA
    assert case.pods() == ["model-a-info"]


async def test_other_credentials_or_another_node_selection_are_another_content(case: InspectionCase) -> None:
    await case.reconcile("a", source="hf://org/repo/model.gguf")
    await case.reconcile("b", source="hf://org/repo/model.gguf", sourceSecretRef={"name": "token"})
    await case.reconcile("c", source="hf://org/repo/model.gguf", pod={"nodeSelector": {"disk": "fast"}})
    assert case.pods() == ["model-a-info", "model-b-info", "model-c-info"]


async def test_after_a_failure_each_model_has_an_inspector_of_its_own(case: InspectionCase) -> None:
    for name in ("a", "b", "c"):
        await case.reconcile(name)
    case.set_status(crashed("there is no file"), "a")
    await case.reconcile("a")
    assert case.requeued == ["lab/b", "lab/c"]
    for name in ("b", "c"):
        await case.reconcile(name)
    assert case.pods() == ["model-a-info", "model-b-info", "model-c-info"]


async def test_a_model_waits_for_a_silent_inspector_of_another_one_for_a_limited_time(case: InspectionCase) -> None:
    await case.reconcile("a")
    case.set_status({"phase": "Pending"}, "a")
    await case.reconcile("b")
    case.clock.now += LONGEST_WAIT
    await case.reconcile("b")
    assert case.pods() == ["model-a-info", "model-b-info"]


async def test_another_model_becomes_the_reader_when_the_first_is_deleted(case: InspectionCase) -> None:
    for name in ("a", "b", "c"):
        await case.reconcile(name)
    case.inspection.forget("lab/a")
    assert case.requeued == ["lab/b", "lab/c"]
    for name in ("b", "c"):
        await case.reconcile(name)
    assert case.pods() == ["model-a-info", "model-b-info"]


async def test_an_edited_model_no_longer_uses_the_report_of_its_earlier_source(case: InspectionCase) -> None:
    await case.reconcile("a")
    await case.reconcile("b")
    case.set_status(REPORT, "a")
    await case.reconcile("a")
    await case.reconcile("b")
    await case.reconcile("b", version=11, source="file:///other.gguf")
    assert case.state.metadata("lab/b") is None
    assert case.pods() == ["model-a-info", "model-b-info"]


async def test_models_share_what_a_remote_source_was_resolved_to(case: InspectionCase) -> None:
    await case.reconcile("a", source=pull_samples.SOURCE)
    await case.reconcile("b", source=pull_samples.SOURCE)
    assert case.pods() == ["model-a-info"]
    message = encode_metadata(pull_samples.METADATA, ResolvedPins(("pinned",), 7))
    case.set_status(succeeded(message, finished="2026-01-01T01:31:00Z"), "a")
    await case.reconcile("a", source=pull_samples.SOURCE)
    await case.reconcile("b", source=pull_samples.SOURCE)
    found = case.state.source("lab/b")
    assert found is not None
    assert set(found.pins.values()) == {"pinned"}
