"""The runner process: its listening socket, opened before the slow imports, and its termination message."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from corral_server.runner.lifecycle.process import listen_before_imports, open_listener, report_failure


def test_connections_during_the_imports_are_not_refused() -> None:
    environ = {"CORRAL_HOST": "127.0.0.1", "CORRAL_PORT": "0"}
    listen_before_imports(environ)
    with open_listener("", 0, int(environ["CORRAL_LISTEN_FD"])) as sock:
        socket.create_connection(sock.getsockname(), timeout=5).close()


def test_an_inherited_socket_is_used() -> None:
    environ = {"CORRAL_HOST": "127.0.0.1", "CORRAL_PORT": "0", "CORRAL_LISTEN_FD": "7"}
    listen_before_imports(environ)
    assert environ["CORRAL_LISTEN_FD"] == "7"


def test_an_invalid_address_is_ignored_by_the_early_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for port in ("nonsense", "70000", str(taken.getsockname()[1])):
            environ = {"CORRAL_HOST": "127.0.0.1", "CORRAL_PORT": port}
            listen_before_imports(environ)
            assert "CORRAL_LISTEN_FD" not in environ


def test_the_termination_message_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report_failure("it\n  broke", tmp_path / "log") == 1
    assert (tmp_path / "log").read_text() == "it broke\n"
    assert capsys.readouterr().err == "it broke\n"


def test_the_termination_message_is_limited(tmp_path: Path) -> None:
    report_failure("x" * 100_000, tmp_path / "log")
    assert (tmp_path / "log").stat().st_size < 4096


def test_an_unwritable_termination_log_is_ignored(tmp_path: Path) -> None:
    assert report_failure("it broke", tmp_path / "missing" / "log") == 1
