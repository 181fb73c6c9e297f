"""Real web servers and forward proxies for tests: Debian's nginx, tinyproxy and squid, by default on loopback ports.

Each is started in the foreground with its own configuration in a temporary folder, never as a service, and ended when
the block ends. The proxies resolve names by a hosts file of their own, in which every name of ``NAMES`` is 127.0.0.1
unless the test says otherwise: loopback addresses themselves are never reached through a proxy.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.authority import KeyPair
from tests.support.ports import free_port
from tests.support.waiting import until

NAMES = ("weights.test", "cdn.test", "other.test")
_NGINX_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
CERTGEN = Path("/usr/lib/squid/security_file_certgen")


def require(*programs: str) -> None:
    """Skip the test if a program is missing; with CORRAL_REQUIRE_CLUSTER=1 it fails."""
    missing = [program for program in programs if shutil.which(program, path=_path()) is None]
    if not missing:
        return
    reason = f"{', '.join(missing)} missing: apt-get install nginx-light tinyproxy-bin squid-openssl"
    if os.environ.get("CORRAL_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"CORRAL_REQUIRE_CLUSTER=1, but {reason}", pytrace=False)
    pytest.skip(reason)


@contextlib.contextmanager
def nginx(
    folder: Path,
    server: str,
    *,
    tls: KeyPair | None = None,
    address: str = "127.0.0.1",
    port: int = 0,
    http: str = "",
) -> Iterator[int]:
    """Run nginx with the directives ``server`` in its server block and ``http`` around it, and yield its port."""
    require("nginx")
    folder.mkdir()
    port = port or free_port()
    listen = f"listen {address}:{port}{' ssl' if tls else ''};"
    if tls:
        listen += f" ssl_certificate {tls.certificate}; ssl_certificate_key {tls.key};"
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in _NGINX_TEMPORARY)
    (folder / "nginx.conf").write_text(
        f"daemon off; worker_processes 1; user {_user()}; pid {folder}/pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log {folder}/access.log; {temporary} {http}\n"
        f"server {{ {listen} server_name _; root {folder}; {server} }} }}\n"
    )
    command = ["nginx", "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
    with _running(command, folder, port=port, address=address):
        yield port


@contextlib.contextmanager
def tinyproxy(folder: Path, *, ports: Sequence[int], login: tuple[str, str] | None = None) -> Iterator[int]:
    """Run tinyproxy, which allows CONNECT to ``ports``, and yield its port."""
    require("tinyproxy", "unshare", "mount")
    folder.mkdir()
    port = free_port()
    lines = [f"Port {port}", "Listen 127.0.0.1", "Timeout 20", f'LogFile "{folder}/access.log"', "LogLevel Connect"]
    lines += [f"ConnectPort {allowed}" for allowed in ports]
    lines += [f"BasicAuth {login[0]} {login[1]}"] if login else []
    (folder / "tinyproxy.conf").write_text("\n".join(lines) + "\n")
    hosts = _hosts(folder)
    script = f"mount --bind {hosts} /etc/hosts && exec tinyproxy -d -c {folder}/tinyproxy.conf"
    mapped = [] if os.geteuid() == 0 else ["--map-root-user"]
    with _running(["unshare", *mapped, "--mount", "sh", "-c", script], folder, port=port):
        yield port


@dataclass(frozen=True)
class Squid:
    """``tls_port`` is that of the proxy over TLS, for the name ``proxy.test`` with a certificate of ``tls``."""

    port: int
    tls_port: int
    access_log: Path


@contextlib.contextmanager
def squid(
    *,
    signer: KeyPair,
    trusted: Path,
    tls: KeyPair,
    address: str = "127.0.0.1",
    hosts: Mapping[str, str] | None = None,
) -> Iterator[Squid]:
    """Run squid, which opens TLS with certificates that ``signer`` signs, and trusts the authorities of ``trusted``.

    ``tls`` is its own certificate for clients that speak TLS to the proxy; those connections are passed through. It
    listens at ``address`` and resolves the names of ``hosts`` to their addresses.

    Squid does not run as root, so it has a folder that its user can reach.
    """
    require("squid", str(CERTGEN))
    with tempfile.TemporaryDirectory(prefix="corral-squid-") as name:
        folder, port, tls_port = Path(name), free_port(), free_port()
        for made, source in (
            ("ca.pem", signer.certificate),
            ("ca.key", signer.key),
            ("trusted.pem", trusted),
            ("own.pem", tls.certificate),
            ("own.key", tls.key),
        ):
            shutil.copyfile(source, folder / made)
        subprocess.run([CERTGEN, "-c", "-s", folder / "certificates", "-M", "4MB"], check=True, capture_output=True)
        (folder / "squid.conf").write_text(
            f"http_port {address}:{port} ssl-bump tls-cert={folder}/ca.pem tls-key={folder}/ca.key "
            "generate-host-certificates=on\n"
            f"https_port {address}:{tls_port} tls-cert={folder}/own.pem tls-key={folder}/own.key\n"
            f"sslcrtd_program {CERTGEN} -s {folder}/certificates -M 4MB\nsslcrtd_children 1 startup=1 idle=1\n"
            f"tls_outgoing_options cafile={folder}/trusted.pem\nacl step1 at_step SslBump1\nssl_bump peek step1\n"
            f"ssl_bump bump all\nhttp_access allow all\nhosts_file {_hosts(folder, hosts)}\npid_filename {folder}/pid\n"
            f"cache_log {folder}/cache.log\naccess_log stdio:{folder}/access.log\ncache deny all\ncache_mem 8 MB\n"
            f"shutdown_lifetime 0 seconds\nvisible_hostname proxy.test\ncoredump_dir {folder}\npinger_enable off\n"
            "max_filedescriptors 1024\n"
        )
        if os.geteuid() == 0:
            for path in (folder, *folder.rglob("*")):
                shutil.chown(path, user="proxy", group="proxy")
        command = ["squid", "-N", "-n", f"corral{port}", "-d", "1", "-f", f"{folder}/squid.conf"]
        with _running(command, folder, port=port, address=address):
            yield Squid(port, tls_port, folder / "access.log")


@contextlib.contextmanager
def _running(command: Sequence[str], folder: Path, *, port: int, address: str = "127.0.0.1") -> Iterator[None]:
    """Run a program until the block ends; its output is in ``output.log``. It must listen on the port in 20 seconds."""
    output = folder / "output.log"
    with output.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"PATH": _path()})
    try:

        def listens() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended: {output.read_text()}")
            with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=1):
                return True
            return False

        until(listens, timeout=20, what=f"{command[0]} listening", interval=0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _hosts(folder: Path, hosts: Mapping[str, str] | None = None) -> Path:
    path = folder / "hosts"
    known = {"localhost": "127.0.0.1", **(dict.fromkeys(NAMES, "127.0.0.1") if hosts is None else hosts)}
    path.write_text("".join(f"{address} {name}\n" for name, address in known.items()))
    return path


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _user() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name
