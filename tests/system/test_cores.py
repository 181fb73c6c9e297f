"""Cores of this process from cgroup files as Linux writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from corral_server.system.cores import available_cores


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(16)))


def cores(root: Path, membership: str, **files: str) -> int:
    """``files`` are quota files by their path below the root, with ``__`` for ``/``."""
    for name, content in files.items():
        path = root / name.replace("__", "/").replace("_max", ".max").replace("cpu_cfs", "cpu.cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    member = root / "membership"
    member.write_text(membership)
    return available_cores(root, member)


def test_without_a_quota_the_affinity_counts(tmp_path: Path) -> None:
    assert cores(tmp_path, "0::/\n", cpu_max="max 100000\n") == 16


def test_a_v2_quota_is_rounded_down_to_cores(tmp_path: Path) -> None:
    assert cores(tmp_path, "0::/\n", cpu_max="350000 100000\n") == 3


def test_less_than_a_core_is_one(tmp_path: Path) -> None:
    assert cores(tmp_path, "0::/\n", cpu_max="50000 100000\n") == 1


def test_the_smallest_quota_of_the_ancestors_counts(tmp_path: Path) -> None:
    files = {"pod__one__cpu_max": "max 100000\n", "pod__cpu_max": "200000 100000\n", "cpu_max": "800000 100000\n"}
    assert cores(tmp_path, "0::/pod/one\n", **files) == 2


def test_in_a_container_the_root_holds_the_quota(tmp_path: Path) -> None:
    assert cores(tmp_path, "0::/../../kubepods/pod1\n", cpu_max="400000 100000\n") == 4


def test_a_v1_quota(tmp_path: Path) -> None:
    files = {"cpu,cpuacct__pod__cpu_cfs_quota_us": "250000\n", "cpu,cpuacct__pod__cpu_cfs_period_us": "100000\n"}
    assert cores(tmp_path, "4:cpu,cpuacct:/pod\n0::/\n", **files) == 2


def test_a_v1_quota_of_minus_one_is_none(tmp_path: Path) -> None:
    files = {"cpu__cpu_cfs_quota_us": "-1\n", "cpu__cpu_cfs_period_us": "100000\n"}
    assert cores(tmp_path, "1:cpu:/\n", **files) == 16


def test_unreadable_and_malformed_files_are_no_limit(tmp_path: Path) -> None:
    assert available_cores(tmp_path, tmp_path / "missing") == 16
    assert cores(tmp_path, "nonsense\n0::/\n", cpu_max="abc 0\n") == 16
    assert cores(tmp_path, "0::/\n", cpu_max="100 0\n") == 16
