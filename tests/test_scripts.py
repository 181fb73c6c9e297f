"""Programs of ``scripts/``: the demo, and the measurement of cold starts from the log of ``corral serve``."""

from __future__ import annotations

import gzip
import io
import re
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from scripts import base_image, chart_docs, images
from scripts.demo import choose_port
from scripts.serving import Event, parse
from scripts.wake import LOADED, LOADING, PARTS, STARTED, split

ROOT = Path(__file__).resolve().parent.parent


def _event(at: float, name: str) -> Event:
    return Event(at, name, "smollm2", {})


def test_a_log_line_becomes_an_event() -> None:
    event = parse('{"ts": "2026-01-01T00:00:01.5Z", "event": "loaded", "model": "smollm2", "seconds": 2}')
    assert event == Event(1767225601.5, "loaded", "smollm2", event.fields if event else {})


@pytest.mark.parametrize("line", ["Traceback (most recent call last):", "[]", "{}", '{"ts": 3, "event": "x"}', ""])
def test_a_line_that_is_not_an_event_is_ignored(line: str) -> None:
    assert parse(line) is None


def test_the_parts_of_a_cold_start_end_at_the_events_of_the_log() -> None:
    events = [_event(10.1, STARTED), _event(10.5, LOADING), _event(12.0, LOADED)]
    assert list(split(10.0, 12.3, events).values()) == pytest.approx([0.1, 0.4, 1.5, 0.3])


@pytest.mark.parametrize(
    "events", [[], [_event(10.5, LOADING)], [_event(9.0, STARTED), _event(99.0, LOADED)]], ids=["none", "some", "odd"]
)
def test_the_parts_of_a_cold_start_add_up_with_missing_events(events: list[Event]) -> None:
    parts = split(10.0, 12.3, events)
    assert list(parts) == list(PARTS)
    assert min(parts.values()) >= 0
    assert sum(parts.values()) == pytest.approx(2.3)


def test_the_demo_rejects_a_requested_port_that_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"port {port} is in use"):
            choose_port(port)


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_the_size_of_an_image_is_reported_by_its_largest_parts(tmp_path: Path) -> None:
    site = "opt/corral/lib/python3.11/site-packages"
    files = {f"{site}/numpy/a.so": 3 << 20, f"{site}/numpy/b/c.so": 1 << 20, f"{site}/one.py": 2 << 19}
    files |= {f"usr/lib/{letter}/x": (1 << 19) - index for index, letter in enumerate("abcd")}
    layer = gzip.compress(_tar({name: bytes(size) for name, size in files.items()}))
    blobs = {"oci-layout": b"{}", "blobs/sha256/aa": layer, "blobs/sha256/bb": b'{"config": 1}' * 1000}
    (tmp_path / "x.tar").write_bytes(_tar(blobs))
    lines = images.account(tmp_path / "x.tar", "corral/x:dev")
    assert "corral/x:dev, 7 MiB uncompressed" in lines[0]
    assert [line.split() for line in lines[1:]] == [
        ["4.0", "MiB", "site-packages/numpy"],
        ["1.0", "MiB", "site-packages/one.py"],
        *(["0.5", "MiB", f"usr/lib/{letter}"] for letter in "abc"),
    ]


def test_a_chart_value_is_described_by_its_whole_comment() -> None:
    values = """
# A comment about the file.

gateway:
  # -- Number of replicas.
  # Each has a queue.
  replicas: 2
  # -- Resources,
  # in the form of the Kubernetes API.
  resources:
    requests: {cpu: 1}
  # Limits of connections,
  # by each gateway.
  connections:
    # -- Maximum number.
    #
    # 0: no limit.
    max: 0
  # an aside

  # -- Port.
  port: 80
"""
    assert list(chart_docs.rows(values)) == [
        ("gateway.replicas", "2", "Number of replicas. Each has a queue."),
        ("gateway.resources.requests", '{"cpu": 1}', "Resources, in the form of the Kubernetes API."),
        ("gateway.connections", "", "Limits of connections, by each gateway."),
        ("gateway.connections.max", "0", "Maximum number.  0: no limit."),
        ("gateway.port", "80", "Port."),
    ]


def test_no_line_of_a_comment_in_the_values_is_missing_in_the_page() -> None:
    lines = (line.strip() for line in chart_docs.VALUES.read_text().splitlines())
    texts = [line.lstrip("#").strip().removeprefix("--").strip() for line in lines if line.startswith("#")]
    page = chart_docs.page().replace("&#124;", "|")
    assert len(texts) > 100
    assert [text for text in texts if text not in page] == []


def test_the_generated_base_image_has_the_name_in_the_dockerfile() -> None:
    assert re.findall(r"^ARG BASE=(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE) == [base_image.BASE]


@pytest.mark.process
def test_the_demo_answers_and_shows_the_parts_of_the_cold_start() -> None:
    ran = subprocess.run(
        [sys.executable, "scripts/demo.py", "--once", "--port", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "time to first token" in ran.stdout
    assert all(meaning in ran.stdout for meaning in PARTS.values())


def test_the_gpu_benchmark_without_a_driver_says_so() -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has NVIDIA's driver")
    command = [sys.executable, str(ROOT / "bench/gpu.py"), "."]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("no NVIDIA GPU: libnvidia-ml.so.1 of NVIDIA's driver is not on this machine")
