"""What the status says of GPUs: the expected and the actual placement, and the condition Accelerated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.base.json_fields import JsonObject, get_object, get_objects
from corral_core.contracts.runner_status import Offload, OffloadDevice
from corral_core.planning.gpus.request import GpuRequest
from corral_core.planning.snapshot import Decision
from corral_core.weights.memory_estimate import estimate_memory
from corral_operator.observe.objects import parse_model_object, parse_pod
from corral_operator.observe.streams.runner_info import RunnerInfo
from corral_operator.report.load import LoadChoice
from corral_operator.report.status import model_status
from corral_operator.report.view import ModelView
from tests.operator import samples
from tests.support.gpu_samples import CONFIGS, GPU, dimensions

GIB = 2**30
ESTIMATE = estimate_memory(dimensions(8), CONFIGS[0], gpus=2)
TWO = LoadChoice(ESTIMATE, GpuRequest(GPU, 2, max(ESTIMATE.devices)), "on 2 GPUs")
DEVICES = (OffloadDevice("CUDA0", "NVIDIA L4", 5 * GIB), OffloadDevice("CUDA1", "NVIDIA L4", 4 * GIB))
INFO = RunnerInfo(samples.METADATA, 4, 4096, 9 * GIB, 9 * GIB, (("NVIDIA L4", 24 * GIB), ("NVIDIA L4", 24 * GIB)))
ALL, NONE = Offload(33, 33, DEVICES), Offload(0, 33, (), "no GPU was found")


def view(load: LoadChoice, offload: Offload | None = None, *, ready: bool = True, **spec: object) -> ModelView:
    item = parse_model_object(samples.model(spec=spec))
    pods = [parse_pod(samples.pod())] if ready else []
    info = INFO if ready else None
    decision = Decision(1 if ready else 0, "serving requests")
    return ModelView(item, decision, pods=pods, info=info, metadata=item.metadata, load=load, offload=offload)


def status(load: LoadChoice, offload: Offload | None = None, *, ready: bool = True, **spec: object) -> JsonObject:
    return model_status(view(load, offload, ready=ready, **spec), samples.NOW)


def condition(found: JsonObject, kind: str) -> JsonObject:
    return next((each for each in get_objects(found, "conditions") if each["type"] == kind), {})


def test_before_the_load_the_placement_has_the_expected_bytes_of_each_gpu() -> None:
    placement = get_object(status(TWO, ready=False), "placement")
    assert (placement["gpus"], placement["resource"], placement["hostBytes"]) == (2, GPU, ESTIMATE.total)
    assert [each["expectedBytes"] for each in get_objects(placement, "devices")] == list(ESTIMATE.devices)
    assert str(placement["why"]).startswith("expected: on 2 GPUs; memory: ")


def test_after_the_load_the_placement_has_what_each_gpu_holds_beside_what_was_expected() -> None:
    placement = get_object(status(TWO, ALL), "placement")
    assert (placement["vramBytes"], placement["layers"], placement["totalLayers"]) == (9 * GIB, 33, 33)
    assert get_objects(placement, "devices")[0] == {
        "name": "NVIDIA L4",
        "totalBytes": 24 * GIB,
        "bytes": 5 * GIB,
        "expectedBytes": ESTIMATE.devices[0],
    }
    assert placement["why"] == "on 2 GPUs"


def test_a_model_with_all_layers_on_its_gpus_is_accelerated_and_ready() -> None:
    found = status(TWO, ALL)
    accelerated = condition(found, "Accelerated")
    assert (accelerated["status"], accelerated["reason"]) == ("True", "AllLayers")
    assert "33 of 33 layers are on GPUs: NVIDIA L4 with 5 GiB" in str(accelerated["message"])
    assert (found["phase"], condition(found, "Ready")["status"]) == ("Ready", "True")


@pytest.mark.parametrize(("offload", "reason"), [(NONE, "OnCPU"), (Offload(20, 33, DEVICES, "too big"), "FewerLayers")])
def test_a_model_on_the_cpu_that_should_be_on_gpus_is_degraded_and_serves(offload: Offload, reason: str) -> None:
    found = status(TWO, offload)
    assert condition(found, "Accelerated")["reason"] == reason
    ready = condition(found, "Ready")
    assert (found["phase"], ready["status"], ready["reason"]) == ("Degraded", "True", "NotAccelerated")
    assert offload.reason in str(ready["message"])


def test_a_planned_part_on_gpus_is_ready() -> None:
    assert TWO.gpus is not None
    part = replace(TWO, gpus=replace(TWO.gpus, capacity=GIB))
    found = status(part, Offload(20, 33, DEVICES, "too big"))
    assert condition(found, "Accelerated")["reason"] == "PartOfLayers"
    assert condition(found, "Ready")["status"] == "True"
    limited = status(TWO, Offload(20, 33, DEVICES), parameters={"num_gpu": 20})
    assert condition(limited, "Ready")["status"] == "True"


@pytest.mark.parametrize(("ready", "reason"), [(False, "NotLoaded"), (True, "NotReported")])
def test_without_a_report_a_model_is_not_accelerated(ready: bool, reason: str) -> None:
    found = status(TWO, None, ready=ready)
    assert condition(found, "Accelerated")["reason"] == reason
    assert found["phase"] == ("Ready" if ready else "Idle")


def test_a_model_on_the_cpu_has_no_such_condition() -> None:
    assert condition(status(LoadChoice(estimate_memory(dimensions(1), CONFIGS[0]))), "Accelerated") == {}


def test_a_model_that_no_gpu_can_hold_says_with_numbers_what_is_missing() -> None:
    load = replace(TWO, why="on 2 GPUs; one GPU needs 50 GiB, and the largest has 24 GiB")
    stuck = replace(view(load, ready=False), decision=Decision(0, "no", failure="no suitable node"))
    message = condition(model_status(stuck, samples.NOW), "Scheduled")["message"]
    assert message == f"no suitable node; {load.why}"
