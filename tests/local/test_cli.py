from __future__ import annotations

import socket
from pathlib import Path

import pytest

from corral_server.local.cli import main
from tests.local.parts import document


def outcome(*arguments: str | Path) -> object:
    """The exit status, or the message that goes with status 1."""
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return ended.value.code


def test_a_valid_file_is_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.yaml").write_text(document("m"))
    assert outcome("validate", tmp_path / "m.yaml") == 0
    assert capsys.readouterr().out == f"{tmp_path}/m.yaml: default/m: valid\n"


def test_every_problem_of_every_file_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(document("a", parallel=0, keepAlive="soon"))
    (tmp_path / "b.yaml").write_text(document("b"))
    (tmp_path / "c.yaml").write_text("")
    assert outcome("validate", tmp_path / "a.yaml", tmp_path / "b.yaml", tmp_path / "c.yaml") == 1
    said = capsys.readouterr().out
    assert "spec.parallel" in said
    assert "spec.keepAlive" in said
    assert "default/b: valid" in said
    assert "c.yaml: there is no Model in it" in said


def test_two_models_with_one_name_are_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.yaml").write_text(document("a", names="[x]"))
    (tmp_path / "b.yaml").write_text(document("b", names="['x:latest']"))
    assert outcome("validate", tmp_path) == 1
    assert "default/b: the name is taken: x:latest" in capsys.readouterr().out


def test_a_folder_without_model_files_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("validate", tmp_path) == 1
    assert capsys.readouterr().out == "there is no Model file\n"


def test_a_file_that_does_not_exist_is_a_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("validate", tmp_path / "none.yaml") == 1
    assert "none.yaml" in capsys.readouterr().out


def test_serving_a_path_that_does_not_exist_says_so(tmp_path: Path) -> None:
    assert outcome("serve", tmp_path / "none") == f"corral: there is no file or folder {tmp_path}/none"


def test_serving_an_invalid_file_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(document("m", parallel=0))
    assert "spec.parallel" in str(outcome("serve", tmp_path / "m.yaml"))


def test_serving_on_a_port_that_is_taken_says_so(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(document("m"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = outcome("serve", tmp_path, "--port", str(port))
    assert f"cannot listen on 127.0.0.1 port {port}: Address already in use" in str(said)


def test_a_setting_that_is_refused_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_MAX_QUEUE", "none")
    assert "OLLAMA_MAX_QUEUE" in str(outcome("serve", tmp_path))


def test_a_port_that_is_no_number_is_a_wrong_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcome("serve", ".", "--port", "http") == 2
    assert "'http' is no port" in capsys.readouterr().err


@pytest.mark.parametrize("command", [("ps",), ("run", "m", "hello")])
def test_asking_a_server_that_is_not_there_says_so(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{port}")
    said = str(outcome(*command))
    assert said.startswith(f"corral: no answer from 127.0.0.1:{port}")
    assert "is `corral serve` running?" in said
