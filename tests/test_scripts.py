"""The programs under scripts/: what the demo and the measurement make of ``corral serve``'s log."""

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

from scripts import base_image, images
from scripts.demo import choose
from scripts.serving import Event, parse
from scripts.wake import LOADED, LOADING, PARTS, STARTED, split

ROOT = Path(__file__).resolve().parent.parent


def _event(at: float, name: str) -> Event:
    return Event(at, name, "smollm2", {})


def test_a_log_line_becomes_an_event() -> None:
    event = parse('{"ts": "2026-01-01T00:00:01.5Z", "event": "loaded", "model": "smollm2", "seconds": 2}')
    assert event == Event(1767225601.5, "loaded", "smollm2", event.fields if event else {})


@pytest.mark.parametrize("line", ["Traceback (most recent call last):", "[]", "{}", '{"ts": 3, "event": "x"}', ""])
def test_a_line_that_is_no_event_is_told_apart(line: str) -> None:
    assert parse(line) is None


def test_the_parts_of_a_wake_end_where_the_log_says() -> None:
    events = [_event(10.1, STARTED), _event(10.5, LOADING), _event(12.0, LOADED)]
    assert list(split(10.0, 12.3, events).values()) == pytest.approx([0.1, 0.4, 1.5, 0.3])


@pytest.mark.parametrize(
    "events", [[], [_event(10.5, LOADING)], [_event(9.0, STARTED), _event(99.0, LOADED)]], ids=["none", "some", "odd"]
)
def test_the_parts_of_a_wake_add_up_whatever_the_log_lacks(events: list[Event]) -> None:
    parts = split(10.0, 12.3, events)
    assert list(parts) == list(PARTS)
    assert min(parts.values()) >= 0
    assert sum(parts.values()) == pytest.approx(2.3)


def test_the_demo_refuses_a_port_that_was_asked_for_and_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SystemExit, match=f"port {port} is taken"):
            choose(port)


def _tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_an_image_is_accounted_for_by_its_largest_parts(tmp_path: Path) -> None:
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


def test_the_base_that_is_made_bears_the_dockerfiles_name() -> None:
    assert re.findall(r"^ARG BASE=(.*)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE) == [base_image.BASE]


@pytest.mark.process
def test_the_demo_answers_and_shows_its_phases() -> None:
    ran = subprocess.run(
        [sys.executable, "scripts/demo.py", "--once", "--port", "0"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "the first token after" in ran.stdout
    assert all(meaning in ran.stdout for meaning in PARTS.values())
