"""The server that commands start in the background: start, race, failure and end, with real processes."""

from __future__ import annotations

import fcntl
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from corral_server.local.background import server as background
from corral_server.local.background.files import MAX_LOG_BYTES, server_files, state_folder
from corral_server.local.background.server import BackgroundServer, CannotStart, NotRunning
from tests.local.background.home import CORRAL, corral, home, pid_of, settings
from tests.local.served import START
from tests.support.ports import free_port
from tests.support.waiting import until


@pytest.mark.process
def test_two_commands_at_once_start_one_server_that_keeps_running_until_it_is_stopped(tmp_path: Path) -> None:
    with home(tmp_path) as environment:
        with ThreadPoolExecutor(2) as pool:
            done = list(pool.map(lambda command: corral(environment, command), ("ls", "ls")))
        assert [each.returncode for each in done] == [0, 0], done
        assert [each.stdout.split() for each in done] == [["NAME", "ID", "SIZE", "MODIFIED", "STATE"]] * 2
        assert sorted(each.stderr.count("starting a server") for each in done) == [0, 1]
        pid = pid_of(environment)
        assert pid is not None
        assert os.getsid(pid) == pid, "Ctrl-C at the terminal does not reach it"
        assert corral(environment, "ls").stderr == ""
        assert pid_of(environment) == pid
        assert "listening" in corral(environment, "logs").stdout
        stopped = corral(environment, "stop", "--server")
        assert (stopped.returncode, stopped.stdout) == (
            0,
            f"the server at http://{environment['OLLAMA_HOST']} has ended\n",
        )
        again = corral(environment, "stop", "--server")
        assert (again.returncode, "no server in the background" in again.stderr) == (1, True)
        assert "is `corral serve` running?" in corral(environment, "ps").stderr


@pytest.mark.process
def test_a_server_that_does_not_come_up_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    with home(tmp_path, OLLAMA_MAX_QUEUE="none") as environment:
        failed = corral(environment, "ls")
        log = server_files(environment, int(environment["OLLAMA_HOST"].partition(":")[2])).log
        assert failed.returncode == 1
        assert "`corral serve` has ended (exit status 1)" in failed.stderr
        assert f"the end of {log}:\n  corral: OLLAMA_MAX_QUEUE" in failed.stderr
        assert "Traceback" not in failed.stderr


@pytest.mark.parametrize(
    ("url", "setting"),
    [
        ("http://192.0.2.1:11434", "1"),
        ("https://127.0.0.1:11434", "1"),
        ("http://127.0.0.1:11434/prefix/", "1"),
        ("http://example.test", "1"),
        ("http://127.0.0.1:1", "0"),
    ],
)
def test_no_server_is_started_for_another_address_or_against_the_setting(
    tmp_path: Path, url: str, setting: str
) -> None:
    environ = {"CORRAL_STATE_FOLDER": str(tmp_path / "state"), "CORRAL_START_SERVER": setting}
    BackgroundServer(httpx.URL(url), environ).start_if_needed()
    assert not (tmp_path / "state").exists()


def test_no_server_is_started_where_something_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = httpx.URL(f"http://127.0.0.1:{taken.getsockname()[1]}")
        BackgroundServer(url, {"CORRAL_STATE_FOLDER": str(tmp_path / "state")}).start_if_needed()
    assert not (tmp_path / "state").exists()


def test_the_wait_for_the_server_of_another_command_has_a_deadline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "START_TIMEOUT", 0.3)
    environ = {"CORRAL_STATE_FOLDER": str(tmp_path)}
    server = BackgroundServer(httpx.URL(f"http://127.0.0.1:{free_port()}"), environ)
    with server.files.pid.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(CannotStart, match="another command started does not answer"):
            server.start_if_needed()


def test_a_process_id_without_a_lock_is_no_server(tmp_path: Path) -> None:
    server = BackgroundServer(httpx.URL("http://127.0.0.1:11434"), {"CORRAL_STATE_FOLDER": str(tmp_path)})
    assert server.pid() is None
    server.files.pid.write_text(f"{os.getpid()}\n")
    assert server.pid() is None
    with pytest.raises(NotRunning):
        server.stop()


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environ = {"CORRAL_STATE_FOLDER": str(tmp_path / "file" / "state")}
    with pytest.raises(CannotStart, match="cannot be started in the background"):
        BackgroundServer(httpx.URL(f"http://127.0.0.1:{free_port()}"), environ).start_if_needed()


def test_a_long_log_is_renamed_at_the_next_start(tmp_path: Path) -> None:
    files = server_files({"CORRAL_STATE_FOLDER": str(tmp_path)}, 11434)
    files.log.write_text("short")
    files.rotate_log()
    assert files.log.read_text() == "short"
    os.truncate(files.log, MAX_LOG_BYTES + 1)
    files.rotate_log()
    assert [path.name for path in tmp_path.iterdir()] == ["server-11434.log.1"]


@pytest.mark.parametrize(
    ("environ", "folder"),
    [
        ({"HOME": "/home/u"}, "/home/u/.local/state/corral"),
        ({"HOME": "/home/u", "XDG_STATE_HOME": "/state"}, "/state/corral"),
        ({"HOME": "/home/u", "XDG_STATE_HOME": "relative"}, "/home/u/.local/state/corral"),
        ({"HOME": "/home/u", "CORRAL_STATE_FOLDER": "/var/corral"}, "/var/corral"),
    ],
)
def test_the_folder_of_the_state_follows_the_base_directory_specification(environ: dict[str, str], folder: str) -> None:
    assert state_folder(environ) == Path(folder)


@pytest.mark.process
def test_a_followed_log_shows_new_lines_of_the_named_model(tmp_path: Path) -> None:
    environment = settings(tmp_path, free_port())
    log = server_files(environment, int(environment["OLLAMA_HOST"].partition(":")[2])).log
    log.parent.mkdir(parents=True)
    log.write_text('{"ts": 1, "event": "plan", "model": "a"}\n{"ts": 1, "event": "plan", "model": "b"}\n')
    with subprocess.Popen(
        [*CORRAL, "logs", "a", "--follow"], env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().split()[1:] == ["a", "plan"]
            with log.open("a") as file:
                file.write('{"ts": 1, "event": "x", "model": "b"}\n{"ts": 1, "event": "ready", "model": "a"}\n')
            assert process.stdout.readline().split()[1:] == ["a", "ready"]
            log.rename(log.with_suffix(".log.1"))
            log.write_text('{"ts": 1, "event": "again", "model": "a"}\n')
            assert process.stdout.readline().split()[1:] == ["a", "again"]
        finally:
            process.kill()


def test_the_process_of_a_server_that_ends_is_waited_for(tmp_path: Path) -> None:
    """The lock of a process that ignores nothing: SIGTERM ends it, and the call returns after its end."""
    server = BackgroundServer(httpx.URL("http://127.0.0.1:11434"), {"CORRAL_STATE_FOLDER": str(tmp_path)})
    with server.files.pid.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code = "import time; print(flush=True); time.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", code], pass_fds=(held.fileno(),), stdout=subprocess.PIPE)
        held.write(f"{child.pid}\n")
    try:
        assert until(server.pid) == child.pid
        server.stop()
        assert server.pid() is None
        assert child.wait(START) == -15
    finally:
        child.kill()
        child.communicate()
