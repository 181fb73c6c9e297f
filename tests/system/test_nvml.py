"""NVML through its real binding, over a stub of the driver: no GPU is needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from corral_core.base.json_fields import get_str
from corral_core.contracts.runner_status import RunnerStatus
from corral_server.system.nvml import Nvml
from tests.support.exposition import sample_value
from tests.support.runner_process import runner_environment, runner_process
from tests.support.waiting import until

pytestmark = pytest.mark.process

_SOURCE = Path(__file__).parents[1] / "support" / "nvml_stub.c"
_ASK = """
import json
from dataclasses import asdict
from corral_server.system.nvml import Nvml
nvml = Nvml.open()
print(json.dumps(None if nvml is None else [asdict(reading) for reading in nvml.readings()]))
if nvml is not None:
    nvml.close()
"""
_LOSE = """
import json, sys
from pathlib import Path
from corral_server.system.nvml import Nvml
lost, nvml = Path(sys.argv[1]), Nvml.open()
def read():
    return [reading.device.name for reading in nvml.readings()], sorted(nvml.lost)
found = [read()]
lost.touch()
found += [read(), read()]
lost.unlink()
found.append(read())
print(json.dumps(found))
"""
_ERRORS = """
import json, sys
from pathlib import Path
from corral_server.system.nvml import Nvml
xid, nvml = Path(sys.argv[1]), Nvml.open()
nvml.readings()
nvml.watch_errors()
found = [nvml.xid_errors()]
xid.write_text("79")
found += [nvml.xid_errors(), nvml.xid_errors()]
nvml.close()
print(json.dumps([[(error.uuid, error.code) for error in errors] for errors in found]))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a ``libnvidia-ml.so.1``."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the stub of NVIDIA's driver")
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libnvidia-ml.so.1"
    command = [compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)]
    subprocess.run(command, check=True, timeout=60)
    return folder


def devices(driver: Path, **settings: str) -> list[dict[str, object]] | None:
    """Return the readings in a process with this driver; ``settings`` are the stub's."""
    found: list[dict[str, object]] | None = json.loads(_run(driver, _ASK, settings).stdout)
    return found


def _run(driver: Path, code: str, settings: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command, env = [sys.executable, "-c", code, *arguments], {**os.environ, **_stub(driver, settings)}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)


def _stub(driver: Path, settings: Mapping[str, str]) -> dict[str, str]:
    return {"LD_LIBRARY_PATH": str(driver), **{f"NVML_STUB_{name.upper()}": value for name, value in settings.items()}}


def _names(readings: list[dict[str, object]] | None) -> list[object]:
    return [get_str(reading, "device", "name") for reading in readings or []]


def test_every_gpu_is_reported_with_its_memory_and_counters(driver: Path) -> None:
    first, second = devices(driver, devices="2") or []
    memory = {"total": 80 * 2**30, "free": 79 * 2**30, "used": 2**30}
    assert first == {
        "index": 0,
        "device": {"name": "Stub 0", "uuid": "GPU-stub-0", **memory},
        "utilization": 0.5,
        "memory_utilization": 0.25,
        "temperature": 60,
        "power": 250.5,
        "uncorrected_errors": 0,
    }
    assert (second["index"], second["utilization"], second["temperature"]) == (1, 0.51, 61)


def test_counters_that_a_gpu_does_not_have_are_omitted(driver: Path) -> None:
    first, second = devices(driver, devices="2", fails="counters") or []
    assert {name for name, value in first.items() if value is None} == {
        "utilization",
        "memory_utilization",
        "temperature",
        "power",
        "uncorrected_errors",
    }
    assert None not in second.values()


def test_a_driver_without_gpus_reports_none(driver: Path) -> None:
    assert devices(driver) == []


def test_a_driver_that_does_not_start_is_none(driver: Path) -> None:
    assert devices(driver, devices="2", fails="init") is None


def test_a_driver_that_cannot_count_reports_none(driver: Path) -> None:
    assert devices(driver, devices="2", fails="count") == []


def test_a_gpu_without_memory_figures_is_omitted(driver: Path) -> None:
    assert _names(devices(driver, devices="2", fails="memory")) == ["Stub 1"]


def test_a_lost_gpu_is_omitted_with_one_warning_until_it_is_back(driver: Path, tmp_path: Path) -> None:
    lost = tmp_path / "lost"
    done = _run(driver, _LOSE, {"devices": "2", "lost": str(lost)}, str(lost))
    both, one = [["Stub 0", "Stub 1"], []], [["Stub 1"], ["GPU-stub-0"]]
    assert json.loads(done.stdout) == [both, one, one, both]
    assert done.stderr.splitlines() == ["GPU 0 is omitted: GPU is lost"]


def test_an_xid_error_is_reported_once_with_its_gpu(driver: Path, tmp_path: Path) -> None:
    xid = tmp_path / "xid"
    done = _run(driver, _ERRORS, {"devices": "2", "xid": str(xid)}, str(xid))
    assert json.loads(done.stdout) == [[], [["GPU-stub-0", 79]], []]


def test_a_driver_without_events_reports_no_xid_errors(driver: Path, tmp_path: Path) -> None:
    xid = tmp_path / "xid"
    done = _run(driver, _ERRORS, {"devices": "1", "xid": str(xid), "fails": "events"}, str(xid))
    assert json.loads(done.stdout) == [[], [], []]
    assert done.stderr.splitlines() == ["Xid errors of GPUs are not reported: Unknown Error"]


def test_without_a_driver_there_is_nothing_to_open() -> None:
    code = "import sys; from corral_server.system.nvml import Nvml; print(Nvml.open(), 'pynvml' in sys.modules)"
    if _driver_here():
        pytest.skip("this machine has NVIDIA's driver")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["None", "False"]


def test_a_runner_reports_its_gpus_in_status_and_metrics_until_one_fails(driver: Path, tmp_path: Path) -> None:
    ecc = tmp_path / "ecc"
    stub = _stub(driver, {"devices": "1", "ecc": str(ecc)})
    with runner_process({**runner_environment(), **stub}) as runner, runner.client() as client:
        activity = until(lambda: _with_devices(client.get("/activity").json()), 60, what="the GPUs")
        assert [(device.name, device.free) for device in activity.devices] == [("Stub 0", 79 * 2**30)]
        labels = {"gpu": "0", "uuid": "GPU-stub-0", "product": "Stub 0"}
        assert sample_value(client.get("/metrics").text, "corral_runner_gpu_power_watts", **labels) == 250.5
        assert client.get("/readyz?wait=30").status_code == 200
        ecc.write_text("2")
        until(lambda: client.get("/readyz").status_code == 503, 30, what="the end of the readiness")
        reason = "GPU 0, Stub 0, (GPU-stub-0) has 2 new uncorrected ECC errors"
        assert client.get("/readyz").text == client.get("/activity").json()["device_failure"] == reason
        assert client.get("/healthz").status_code == 200
        refused = client.post("/api/generate", json={"model": "tiny", "prompt": "Hello"})
        assert (refused.status_code, refused.headers["corral-retry"]) == (503, "draining")
        assert sample_value(client.get("/metrics").text, "corral_runner_gpu_failed") == 1


def _with_devices(data: Mapping[str, object]) -> RunnerStatus | None:
    activity = RunnerStatus.from_json(data, time.time())
    return activity if activity.devices else None


def _driver_here() -> bool:
    nvml = Nvml.open()
    if nvml is not None:
        nvml.close()
    return nvml is not None
