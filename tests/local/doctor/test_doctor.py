"""The report of ``corral doctor``: forms, exit status, and a machine on which nothing works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from corral_server.local.doctor.doctor import findings_of, print_findings
from corral_server.local.doctor.finding import Finding, Level, fail, ok, warn
from tests.local.served import START
from tests.support.ports import free_port


def test_the_exit_status_tells_whether_a_check_failed(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_findings([ok("a", "fine"), warn("b", "slow", "do x")], as_json=False) == 0
    assert print_findings([fail("c", "broken", "do y")], as_json=False) == 1
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:4] == ["ok      a        fine", "WARN    b        slow", "→ do x"]


def test_the_report_as_json_has_every_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert print_findings([ok("a", "fine"), fail("c", "broken", "do y")], as_json=True) == 1
    assert json.loads(capsys.readouterr().out) == {
        "ok": False,
        "findings": [
            {"check": "a", "level": "ok", "text": "fine", "advice": ""},
            {"check": "c", "level": "fail", "text": "broken", "advice": "do y"},
        ],
    }


def test_a_check_that_fails_itself_is_a_warning() -> None:
    def check() -> Finding:
        raise FileNotFoundError("no /proc")

    [found] = findings_of("memory", check)
    assert (found.level, "FileNotFoundError: no /proc" in found.text) == (Level.WARN, True)


@pytest.mark.process
def test_a_machine_on_which_nothing_works_gets_a_report(tmp_path: Path) -> None:
    """No writable folder, wrong settings, no llama.cpp backend: every check still has a line."""
    (tmp_path / "file").touch()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("OLLAMA_", "CORRAL_"))},
        "OLLAMA_MODELS": str(tmp_path / "file" / "models"),
        "OLLAMA_HOST": f"127.0.0.1:{free_port()}",
        "OLLAMA_MAX_QUEUE": "many",
        "CORRAL_STATE_FOLDER": str(tmp_path / "file" / "state"),
        "CORRAL_LLAMA_BACKENDS": str(tmp_path),
        "PATH": "",
        "HTTPS_PROXY": "socks5://proxy",
    }
    done = subprocess.run(
        [sys.executable, "-m", "corral_server.local", "doctor", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=START,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "")
    levels = {found["check"]: found["level"] for found in json.loads(done.stdout)["findings"]}
    failed = {check for check, level in levels.items() if level == "fail"}
    assert failed >= {"settings", "weights", "state", "proxy"}
    assert levels["Python"] == levels["server"] == levels["compiler"] == "ok"
    assert "llama.cpp" in levels
