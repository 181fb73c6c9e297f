from __future__ import annotations

import io
import json
import logging

from corral_server.local.logs import Bridge, EventLog


def test_a_pipe_gets_one_json_object_an_event() -> None:
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


def test_a_terminal_line_is_one_line_and_free_of_control_characters() -> None:
    text = io.StringIO()
    EventLog(text, human=True).event("output", "llama", text="a\nb\x1b[31mred\ttab")
    assert text.getvalue().count("\n") == 1
    assert "\x1b" not in text.getvalue()


def test_a_runners_line_keeps_its_time_and_its_level() -> None:
    text = io.StringIO()
    log = EventLog(text, human=False)
    log.relay(
        "llama", '{"ts": "2026-01-02T03:04:05.678000Z", "level": "WARNING", "event": "slow", "model": "x", "n": 1}'
    )
    line = json.loads(text.getvalue())
    said = {"ts": "2026-01-02T03:04:05.678000Z", "level": "warning", "event": "slow", "model": "llama", "n": 1}
    assert line == said


def test_other_text_of_a_runner_is_shown_when_asked_for() -> None:
    for verbose in (False, True):
        text = io.StringIO()
        EventLog(text, human=False, verbose=verbose).relay("llama", "ggml says hello")
        assert ("ggml says hello" in text.getvalue()) is verbose


def test_what_libraries_log_becomes_an_event() -> None:
    text = io.StringIO()
    handler = Bridge(EventLog(text, human=False))
    handler.handle(logging.makeLogRecord({"name": "uvicorn", "levelno": 30, "levelname": "WARNING", "msg": "odd"}))
    line = json.loads(text.getvalue())
    assert (line["event"], line["level"], line["logger"], line["message"]) == ("log", "warning", "uvicorn", "odd")


def test_a_reader_that_went_away_does_not_matter() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    EventLog(Broken(), human=False).event("ready")
