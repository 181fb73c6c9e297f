"""Memory of this machine from /proc and cgroups."""

from __future__ import annotations

import os
from pathlib import Path

from corral_server.system.cgroup_memory import ContainerMemory
from corral_server.system.machine_memory import memory_for_runners

KIB = 1 << 10


def _proc(folder: Path, *, total: int = 1000, available: int = 400, **processes: str) -> Path:
    (folder / "meminfo").write_text(f"MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable: {available} kB\n")
    for name, status in processes.items():
        (folder / name.removeprefix("p")).mkdir()
        (folder / name.removeprefix("p") / "status").write_text(status)
    return folder


def _capacity(proc: Path, *runners: int, container: ContainerMemory | None = None) -> int | None:
    return memory_for_runners(runners, proc=proc, container=lambda: container)


def test_capacity_is_free_memory_plus_that_of_runners(tmp_path: Path) -> None:
    status = "Name: x\nVmLck: 0 kB\nVmRSS: 500 kB\nRssAnon: 100 kB\nRssFile: 390 kB\nRssShmem: 10 kB\n"
    proc = _proc(tmp_path, p7=status)
    assert _capacity(proc) == 400 * KIB
    assert _capacity(proc, 7) == 510 * KIB


def test_locked_weights_count_once(tmp_path: Path) -> None:
    proc = _proc(tmp_path, p7="VmLck: 300 kB\nVmRSS: 350 kB\nRssAnon: 100 kB\nRssShmem: 0 kB\n")
    assert _capacity(proc, 7) == 750 * KIB


def test_an_ended_runner_counts_nothing(tmp_path: Path) -> None:
    assert _capacity(_proc(tmp_path), 12345) == 400 * KIB


def test_a_smaller_container_limit_counts(tmp_path: Path) -> None:
    proc = _proc(tmp_path, p7="VmRSS: 100 kB\nRssAnon: 100 kB\n")
    assert _capacity(proc, 7, container=ContainerMemory(300 * KIB, 150 * KIB)) == 250 * KIB
    assert _capacity(proc, 7, container=ContainerMemory(10**9, 0)) == 500 * KIB


def test_capacity_is_unknown_without_proc(tmp_path: Path) -> None:
    assert _capacity(tmp_path) is None
    (tmp_path / "meminfo").write_text("MemTotal: many kB\nMemAvailable:\n")
    assert _capacity(tmp_path) is None


def test_this_machine_has_capacity() -> None:
    found = memory_for_runners([os.getpid()])
    assert found is not None
    assert 0 < found <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
