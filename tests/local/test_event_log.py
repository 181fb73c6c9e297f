from __future__ import annotations

import io
import json
import logging

import pytest

from corral_server.local.event_log import EventLog, LoggingBridge


def test_a_pipe_gets_one_json_object_per_event() -> None:
    text = io.StringIO()
    EventLog(text, human=False).event("ready", "llama", slots=4, reason="a\nb")
    line = json.loads(text.getvalue())
    assert list(line)[:4] == ["ts", "level", "event", "model"]
    assert (line["event"], line["model"], line["slots"], line["reason"]) == ("ready", "llama", 4, "a\nb")
    assert text.getvalue().count("\n") == 1


def test_a_terminal_gets_readable_lines() -> None:
    text = io.StringIO()
    EventLog(text, human=True).problem("exited", "llama", status=1, seconds=0.12345)
    words = text.getvalue().split()
    assert words[1:] == ["ERROR", "llama", "exited", "status=1", "seconds=0.123"]


def test_a_terminal_line_has_no_line_breaks_or_control_characters() -> None:
    text = io.StringIO()
    EventLog(text, human=True).event("output", "llama", text="a\nb\x1b[31mred\ttab")
    assert text.getvalue().count("\n") == 1
    assert "\x1b" not in text.getvalue()


def test_a_runners_event_keeps_its_time_and_level() -> None:
    text = io.StringIO()
    log = EventLog(text, human=False)
    log.relay(
        "llama", '{"ts": "2026-01-02T03:04:05.678000Z", "level": "WARNING", "event": "slow", "model": "x", "n": 1}'
    )
    line = json.loads(text.getvalue())
    said = {"ts": "2026-01-02T03:04:05.678000Z", "level": "warning", "event": "slow", "model": "llama", "n": 1}
    assert line == said


@pytest.mark.parametrize(
    "text",
    [
        "[" * 16_000,
        '{"event":' * 1_700,
        '{"event": "x", "ts": 1e300}',
        '{"event": "x", "ts": -1e300}',
        '{"event": "x", "ts": 1e999}',
        '{"event": "x", "ts": NaN}',
        '{"event": "x", "ts": "9999-12-31T23:59:59-23:59"}',
        '{"event": "x", "ts": "0001-01-01T00:00:00+23:59"}',
        '{"event": "x", "level": [[1]], "a": {"b": []}}',
        '{"event": "\\ud800"}',
        "\ud800",
    ],
    ids=lambda text: repr(text[:40]),
)
@pytest.mark.parametrize("human", [True, False])
def test_any_line_of_a_runner_is_logged_as_one_line(text: str, human: bool) -> None:
    stream = io.StringIO()
    EventLog(stream, human=human, verbose=True).relay("llama", text)
    assert stream.getvalue().count("\n") == 1


def test_other_output_of_a_runner_is_logged_when_verbose() -> None:
    for verbose in (False, True):
        text = io.StringIO()
        EventLog(text, human=False, verbose=verbose).relay("llama", "ggml says hello")
        assert ("ggml says hello" in text.getvalue()) is verbose


def test_log_records_of_libraries_become_events() -> None:
    text = io.StringIO()
    handler = LoggingBridge(EventLog(text, human=False))
    handler.handle(logging.makeLogRecord({"name": "uvicorn", "levelno": 30, "levelname": "WARNING", "msg": "odd"}))
    line = json.loads(text.getvalue())
    assert (line["event"], line["level"], line["logger"], line["message"]) == ("log", "warning", "uvicorn", "odd")


def test_a_closed_pipe_is_ignored() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    EventLog(Broken(), human=False).event("ready")
