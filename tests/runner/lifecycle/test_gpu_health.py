"""Which errors end the readiness of a runner, and which do not."""

from __future__ import annotations

import pytest

from corral_core.contracts.runner_status import GPUDevice
from corral_server.runner.lifecycle.gpus.health import APPLICATION_XIDS, DeviceHealth
from corral_server.system.nvml import DeviceReading, XidError

UUID = "GPU-1"


def reading(errors: int | None = 0, uuid: str = UUID) -> DeviceReading:
    return DeviceReading(3, GPUDevice("A100", uuid, total=2, free=1, used=1), uncorrected_errors=errors)


def test_errors_from_before_the_start_do_not_count() -> None:
    health = DeviceHealth()
    assert [health.observe([reading(7)]) for _ in range(2)] == ["", ""]


def test_a_new_uncorrected_error_is_a_failure() -> None:
    health = DeviceHealth()
    assert health.observe([reading(7)]) == ""
    assert health.observe([reading(9)]) == "GPU 3, A100, (GPU-1) has 2 new uncorrected ECC errors"


def test_a_device_without_ecc_does_not_fail() -> None:
    health = DeviceHealth()
    assert [health.observe([reading(None)]) for _ in range(2)] == ["", ""]


def test_a_lost_device_is_a_failure() -> None:
    health = DeviceHealth()
    health.observe([reading(), reading(uuid="GPU-2")])
    assert health.observe([reading(uuid="GPU-2")], lost={UUID}) == "GPU 3, A100, (GPU-1) is lost to the driver"


@pytest.mark.parametrize("code", [48, 63, 74, 79, 94, 95, 119, 140])
def test_an_xid_error_of_the_device_is_a_failure(code: int) -> None:
    health = DeviceHealth()
    failure = health.observe([reading()], errors=[XidError(UUID, 31), XidError(UUID, code)])
    assert failure == f"GPU 3, A100, (GPU-1) reports Xid {code}"
    assert health.xid_errors == {(UUID, "application"): 1, (UUID, "device"): 1}


@pytest.mark.parametrize("code", sorted(APPLICATION_XIDS))
def test_an_xid_error_of_an_application_is_counted_only(code: int) -> None:
    health = DeviceHealth()
    assert health.observe([reading()], errors=[XidError(UUID, code)]) == ""
    assert health.xid_errors == {(UUID, "application"): 1}
