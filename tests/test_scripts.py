"""The programs under scripts/: what the demo and the measurement make of ``corral serve``'s log."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

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
