"""NVML through its real binding, over a stub of the driver that is compiled here: no GPU is needed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from corral_core.activity import Activity
from corral_server.runner.nvml import Nvml
from tests.support.runner_process import environment, running
from tests.support.waiting import until

pytestmark = pytest.mark.process

_SOURCE = Path(__file__).parent.parent / "support" / "nvml_stub.c"
_ASK = """
import json
from corral_server.runner.nvml import Nvml
nvml = Nvml.open()
print(json.dumps(None if nvml is None else [device.to_json() for device in nvml.devices()]))
if nvml is not None:
    nvml.close()
"""
_LOSE = """
import json, sys
from pathlib import Path
from corral_server.runner.nvml import Nvml
lost, nvml = Path(sys.argv[1]), Nvml.open()
found = [nvml.devices()]
lost.touch()
found += [nvml.devices(), nvml.devices()]
lost.unlink()
found.append(nvml.devices())
print(json.dumps([[device.name for device in devices] for devices in found]))
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a ``libnvidia-ml.so.1``."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler for the stub of NVIDIA's driver")
    folder = tmp_path_factory.mktemp("driver")
    library = folder / "libnvidia-ml.so.1"
    command = [compiler, "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(_SOURCE)]
    subprocess.run(command, check=True, timeout=60)
    return folder


def devices(driver: Path, **settings: str) -> list[dict[str, object]] | None:
    """What a process with this driver is told of the GPUs; ``settings`` are the stub's."""
    env = {**os.environ, **_stub(driver, settings)}
    done = subprocess.run([sys.executable, "-c", _ASK], env=env, capture_output=True, text=True, timeout=60, check=True)
    found: list[dict[str, object]] | None = json.loads(done.stdout)
    return found


def _stub(driver: Path, settings: Mapping[str, str]) -> dict[str, str]:
    return {"LD_LIBRARY_PATH": str(driver), **{f"NVML_STUB_{name.upper()}": value for name, value in settings.items()}}


def test_every_gpu_is_told_with_its_memory(driver: Path) -> None:
    first, second = devices(driver, devices="2") or []
    assert first == {
        "name": "Stub 0",
        "uuid": "GPU-stub-0",
        "total_bytes": 80 * 2**30,
        "free_bytes": 79 * 2**30,
        "used_bytes": 2**30,
    }
    assert (second["name"], second["used_bytes"]) == ("Stub 1", 2 * 2**30)


def test_a_driver_without_gpus_tells_none(driver: Path) -> None:
    assert devices(driver) == []


def test_a_driver_that_does_not_start_is_none(driver: Path) -> None:
    assert devices(driver, devices="2", fails="init") is None


def test_a_driver_that_cannot_count_tells_none(driver: Path) -> None:
    assert devices(driver, devices="2", fails="count") == []


def test_a_gpu_that_does_not_tell_its_memory_is_left_out(driver: Path) -> None:
    assert [device["name"] for device in devices(driver, devices="2", fails="memory") or []] == ["Stub 1"]


def test_a_gpu_that_disappears_is_left_out_with_one_warning_and_is_told_again_when_it_is_back(
    driver: Path, tmp_path: Path
) -> None:
    lost = tmp_path / "lost"
    env = {**os.environ, **_stub(driver, {"devices": "2", "lost": str(lost)})}
    done = subprocess.run(
        [sys.executable, "-c", _LOSE, str(lost)], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout) == [["Stub 0", "Stub 1"], ["Stub 1"], ["Stub 1"], ["Stub 0", "Stub 1"]]
    assert done.stderr.splitlines() == ["GPU 0 is left out: GPU is lost"]


def test_without_a_driver_there_is_nothing_to_open() -> None:
    code = "import sys; from corral_server.runner.nvml import Nvml; print(Nvml.open(), 'pynvml' in sys.modules)"
    if _driver_here():
        pytest.skip("this machine has NVIDIA's driver")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["None", "False"]


def test_a_runner_tells_of_the_gpus_in_its_activity(driver: Path) -> None:
    with running({**environment(), **_stub(driver, {"devices": "1"})}) as runner, runner.client() as client:
        activity = until(lambda: _with_devices(client.get("/activity").json()), 60, what="the GPUs")
        assert [(device.name, device.free) for device in activity.devices] == [("Stub 0", 79 * 2**30)]


def _with_devices(data: Mapping[str, object]) -> Activity | None:
    activity = Activity.from_json(data)
    return activity if activity.devices else None


def _driver_here() -> bool:
    nvml = Nvml.open()
    if nvml is not None:
        nvml.close()
    return nvml is not None
