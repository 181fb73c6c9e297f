from __future__ import annotations

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from corral_server.local.cli.main import main
from tests.local.parts import document


def outcome(*arguments: str | Path) -> object:
    """Return the exit status, or the message of exit status 1."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def test_validate_reports_a_valid_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.yaml").write_text(document("m"))
    assert outcome("validate", tmp_path / "m.yaml") == 0
    assert capsys.readouterr().out == f"{tmp_path}/m.yaml: default/m: valid\n"


def test_validate_prints_every_problem_of_every_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(document("a", parallel=0, keepAlive="soon"))
    (tmp_path / "b.yaml").write_text(document("b"))
    (tmp_path / "c.yaml").write_text("")
    assert outcome("validate", tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "c.yaml") == 1
    said = capsys.readouterr().out
    assert "spec.parallel" in said
    assert "spec.keepAlive" in said
    assert "default/b: valid" in said
    assert "c.yaml: the file has no Model" in said


def test_validate_reports_two_models_with_one_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(document("a", names="[x]"))
    (tmp_path / "b.yaml").write_text(document("b", names="['x:latest']"))
    assert outcome("validate", tmp_path) == 1
    assert "default/b: the name x:latest belongs to Model default/a" in capsys.readouterr().out


def test_validate_reports_a_folder_without_model_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("validate", tmp_path) == 1
    assert capsys.readouterr().out == "no Model file found; name a YAML file or a folder with YAML files\n"


def test_validate_reports_a_missing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("validate", tmp_path / "none.yaml") == 1
    assert "none.yaml" in capsys.readouterr().out


def test_serve_reports_a_missing_path(tmp_path: Path) -> None:
    assert outcome("serve", tmp_path / "none") == f"corral: no such file or folder: {tmp_path}/none"


def test_serve_reports_the_errors_of_an_invalid_file(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(document("m", parallel=0))
    assert "spec.parallel" in str(outcome("serve", tmp_path / "m.yaml"))


def test_serve_reports_a_port_in_use(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(document("m"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = outcome("serve", tmp_path, "--port", str(port))
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in str(said)


def test_serve_names_an_invalid_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MAX_QUEUE", "none")
    assert "OLLAMA_MAX_QUEUE" in str(outcome("serve", tmp_path))


def test_a_port_that_is_not_a_number_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("serve", ".", "--port", "http") == 2
    assert "'http' is not a port" in capsys.readouterr().err


@pytest.mark.process
def test_a_reader_that_leaves_ends_the_command_without_a_message_about_the_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        environment = {**os.environ, "OLLAMA_HOST": address, "CORRAL_START_SERVER": "0"}
        pool.submit(_answer, server)
        reading, writing = os.pipe()
        os.close(reading)
        command = [sys.executable, "-m", "corral_server.local", "run", "m", "hello"]
        with os.fdopen(writing, "wb") as output:
            done = subprocess.run(
                command, env=environment, stdout=output, stderr=subprocess.PIPE, text=True, check=False, timeout=60
            )
    assert (done.returncode, done.stderr) == (1, "")


def _answer(server: socket.socket) -> None:
    """Answer the list of models, and one chat with one line."""
    for line in (b'{"models":[{"name":"m:latest"}]}', b'{"message":{"role":"assistant","content":"hi"},"done":true}\n'):
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            head = f"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {len(line)}\r\n\r\n"
            connection.sendall(head.encode() + line)


@pytest.mark.parametrize("command", [("ps",), ("run", "m", "hello")])
def test_run_and_ps_report_an_unreachable_server(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{port}")
    monkeypatch.setenv("CORRAL_START_SERVER", "0")
    said = str(outcome(*command))
    assert said.startswith(f"corral: no answer from 127.0.0.1:{port}")
    assert "is `corral serve` running?" in said
