"""Findings about memory, cores, folders, the installation and the network."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from corral_server.local.doctor import installation, machine, network
from corral_server.local.doctor.finding import Level
from corral_server.system.cgroup_memory import ContainerMemory
from tests.support.ports import free_port

GB = 10**9


@pytest.mark.parametrize(("free", "level"), [(16 * GB, Level.OK), (GB, Level.WARN), (None, Level.WARN)])
def test_little_or_unknown_memory_is_a_warning(free: int | None, level: Level) -> None:
    assert machine.check_memory(lambda: free, lambda: None).level is level


def test_the_limit_of_the_container_is_shown() -> None:
    found = machine.check_memory(lambda: 4 * GB, lambda: ContainerMemory(8 * GB, 4 * GB))
    assert found.text == "4.0 GB free (limit of the container: 8.0 GB)"


def test_the_cores_of_the_control_group_are_shown_beside_those_of_the_machine() -> None:
    assert machine.check_cores(lambda: 2, 16).text == "2 of 16"
    assert machine.check_cores(lambda: 1, 16).level is Level.WARN


@pytest.mark.parametrize(("free", "level"), [(50 * GB, Level.OK), (GB, Level.WARN), (GB // 100, Level.FAIL)])
def test_disk_space_is_checked_where_the_folder_will_be(tmp_path: Path, free: int, level: Level) -> None:
    found = machine.check_folder("weights", tmp_path / "not" / "yet", free=lambda path: free if path == tmp_path else 0)
    assert found.level is level
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = machine.check_folder("weights", tmp_path / "file" / "store")
    assert (found.level, "cannot be written" in found.text) == (Level.FAIL, True)


def test_a_missing_compiler_is_no_failure() -> None:
    assert machine.check_compiler(lambda name: None).level is Level.OK
    assert machine.check_compiler(lambda name: f"/bin/{name}" if name == "g++" else None).text == "/bin/g++"


REQUIREMENTS = [
    "pydantic>=2",
    "corral[pull,runner]; extra == 'serve'",
    'ollama>=0.6; extra == "serve"',
    "urllib3>=2.8 ; extra == 'pull'",
    "uvloop>=0.23.0; sys_platform != 'win32' and extra == 'runner'",
    "pytest; extra == 'dev'",
]


def test_the_packages_of_the_extra_are_those_of_its_extras_too() -> None:
    assert sorted(installation.packages_of("serve", REQUIREMENTS)) == ["ollama", "urllib3", "uvloop"]


def test_missing_packages_are_a_failure_with_the_command_that_installs_them() -> None:
    def installed(name: str) -> str:
        if name == "urllib3":
            raise PackageNotFoundError(name)
        return "1"

    found = installation.check_packages(installed, lambda name: REQUIREMENTS)
    assert (found.level, found.text) == (Level.FAIL, "corral 1 lacks urllib3")
    assert "pipx install" in found.advice


def test_this_installation_is_complete() -> None:
    assert installation.check_packages().level is Level.OK


def test_a_setting_that_is_not_allowed_is_a_failure() -> None:
    found = installation.check_settings({"OLLAMA_MAX_QUEUE": "none"})
    assert (found.level, "OLLAMA_MAX_QUEUE" in found.text) == (Level.FAIL, True)


class _Server(BaseHTTPRequestHandler):
    text = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(self.text)))
        self.end_headers()
        self.wfile.write(self.text)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def http_server(text: bytes) -> Iterator[int]:
    """Serve one text at every path; yield the port."""
    handler = type("Handler", (_Server,), {"text": text})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def test_a_free_port_is_fine() -> None:
    assert network.check_port("127.0.0.1", free_port(), is_background=False).level is Level.OK


def test_a_port_with_another_server_is_a_failure_that_names_the_process() -> None:
    with http_server(b"hello") as port:
        found = network.check_port("127.0.0.1", port, is_background=False)
    assert found.level is Level.FAIL
    assert f"port {port} of 127.0.0.1 is in use (process {os.getpid()}, " in found.text
    assert "OLLAMA_HOST" in found.advice


def test_a_server_of_ollamas_api_at_the_port_is_fine() -> None:
    with http_server(b"Ollama is running") as port:
        own = network.check_port("127.0.0.1", port, is_background=True)
        other = network.check_port("127.0.0.1", port, is_background=False, owner=lambda number: f"owner of {number}")
    assert (own.level, "corral stop --server" in own.text) == (Level.OK, True)
    assert (other.level, f"(owner of {port})" in other.text) == (Level.OK, True)


def test_an_address_of_another_machine_cannot_be_used() -> None:
    assert network.check_port("192.0.2.1", 11434, is_background=False).level is Level.FAIL


def test_the_owner_of_a_port_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert network.port_owner(listener.getsockname()[1]).startswith(f"process {os.getpid()}, ")


@pytest.mark.parametrize(
    ("environ", "level", "text"),
    [
        ({}, Level.OK, "none"),
        (
            {"HTTPS_PROXY": "http://u:secret@proxy:3128", "NO_PROXY": "10.0.0.0/8"},  # pragma: allowlist secret
            Level.OK,
            "http://proxy:3128, except 10.",
        ),
        ({"HTTPS_PROXY": "socks5://proxy"}, Level.FAIL, "socks5"),
        ({"HTTP_PROXY": "http://proxy:3128"}, Level.WARN, "127.0.0.1"),
        ({"HTTP_PROXY": "http://proxy:3128", "no_proxy": "localhost, 127.0.0.1"}, Level.OK, "none"),
    ],
)
def test_the_settings_of_a_proxy_are_shown_without_its_password(
    environ: dict[str, str], level: Level, text: str
) -> None:
    found = network.check_proxy(environ)
    assert (found.level, text in found.text) == (level, True)
    assert "secret" not in found.text
