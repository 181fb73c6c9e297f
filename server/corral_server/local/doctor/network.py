"""Checks of the network: the address of the server, and the settings of a proxy."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping
from typing import Final

import httpx
import psutil

from corral_core.base.errors import InvalidSetting
from corral_server.local.doctor.finding import Finding, fail, ok, warn
from corral_server.pull.http.settings import network_settings

_TIMEOUT: Final = 3.0
_OLLAMA_TEXT: Final = "Ollama is running"


def check_port(host: str, port: int, *, is_background: bool, owner: Callable[[int], str] | None = None) -> Finding:
    """Report what listens at the server's address. ``is_background`` tells whether a command has started it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family):
            return ok("server", f"none; port {port} of {host} is free")
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            advice = "choose another address in OLLAMA_HOST, such as 127.0.0.1:11434"
            return fail("server", f"port {port} of {host} cannot be used: {error.strerror or error}", advice)
    process = (owner or port_owner)(port)
    by = f" ({process})" if process else ""
    if _answers_as_ollama(host, port):
        where = "started by a command: `corral stop --server` ends it" if is_background else f"it answers{by}"
        return ok("server", f"a server with Ollama's API listens at {host} port {port}; {where}")
    advice = "end that process, or choose another port in OLLAMA_HOST, such as 127.0.0.1:11435"
    return fail("server", f"port {port} of {host} is in use{by}, but not by a server with Ollama's API", advice)


def port_owner(port: int) -> str:
    """Return the process that listens at a port, as far as this user may see it; empty if not."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr[1:2] == (port,) and connection.pid:
                return f"process {connection.pid}, {psutil.Process(connection.pid).name()}"
    except (psutil.Error, OSError):
        pass  # on macOS only root may list the connections of all processes
    return ""


def check_proxy(environ: Mapping[str, str]) -> Finding:
    """Report the proxy that pulls use, without its credentials."""
    try:
        settings = network_settings(environ)
    except InvalidSetting as error:
        return fail("proxy", str(error), "correct the environment variable")
    plain = environ.get("HTTP_PROXY") or environ.get("http_proxy") or environ.get("ALL_PROXY")
    skipped = environ.get("NO_PROXY") or environ.get("no_proxy") or ""
    if plain and not {"*", "127.0.0.1"} & {item.strip() for item in skipped.split(",")}:
        text = (
            "HTTP_PROXY is set and NO_PROXY lacks 127.0.0.1: clients may ask the proxy for the server on this machine"
        )
        return warn("proxy", text, "add localhost,127.0.0.1 to NO_PROXY")
    if settings.https_proxy is None:
        return ok("proxy", "none: sources are reached directly")
    rest = f", except {skipped}" if skipped else ""
    return ok("proxy", f"sources are pulled through {settings.https_proxy.url}{rest}")


def _answers_as_ollama(host: str, port: int) -> bool:
    """Whether a server answers ``/`` as Ollama does, or refuses for lack of an API key."""
    shown = f"[{host}]" if ":" in host else host
    try:
        answer = httpx.get(f"http://{shown}:{port}/", timeout=_TIMEOUT, trust_env=False)
    except httpx.HTTPError:
        return False
    return answer.status_code == httpx.codes.UNAUTHORIZED or _OLLAMA_TEXT in answer.text
