"""``corral logs``: lines of one model, and lines that are no events."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_server.local.background.files import server_files
from corral_server.local.cli.logs import NoLog, show_logs
from corral_server.local.event_log import terminal_text
from tests.local.parts import document

LINES = (
    '{"ts": "2026-11-30T12:00:00Z", "level": "info", "event": "listening", "port": 1}',
    '{"ts": "2026-11-30T12:00:01Z", "level": "error", "event": "exited", "model": "m", "reason": "out of memory"}',
    '{"ts": "2026-11-30T12:00:02Z", "level": "info", "event": "plan", "model": "other"}',
    "Traceback (most recent call last):",
)


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    environ = {"CORRAL_STATE_FOLDER": str(tmp_path), "OLLAMA_HOST": "127.0.0.1:17434"}
    for name, value in {**environ, "CORRAL_MODELS_FOLDER": str(tmp_path / "models")}.items():
        monkeypatch.setenv(name, value)
    path = server_files(environ, 17434).log
    path.write_text("\n".join((*LINES, "an incomplete line")))
    return path


@pytest.mark.usefixtures("log")
def test_the_last_complete_lines_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_logs(None, lines=2, follow=False, raw=True) == 0
    assert capsys.readouterr().out.splitlines() == list(LINES[2:])


@pytest.mark.usefixtures("log")
def test_the_lines_of_a_model_are_found_by_the_name_that_clients_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "m.yaml").write_text(document("m", names="['llama3.2:1b']"))
    for name in ("m", "llama3.2:1b"):
        assert show_logs(name, lines=10, follow=False, raw=True) == 0
        assert capsys.readouterr().out.splitlines() == [LINES[1]]


def test_events_are_shown_as_on_a_terminal_and_other_lines_as_they_are() -> None:
    assert terminal_text(LINES[1]).split()[1:] == ["ERROR", "m", "exited", "reason=out", "of", "memory"]
    assert terminal_text(LINES[3]) == LINES[3]
    assert terminal_text("a\x1b[31mb") == "a?[31mb"


def test_without_a_log_the_reason_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRAL_STATE_FOLDER", str(tmp_path))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:17434")
    with pytest.raises(NoLog, match=r"server-17434\.log does not exist"):
        show_logs(None, lines=10, follow=False, raw=False)
