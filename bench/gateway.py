"""The gateway beside nginx, as the same proxy over the same upstream, one core each, in one run.

    python bench/gateway.py [--rounds 5] [--seconds 4] [--connections 64]

Measured are whole requests a second and streamed chunks a second (64 chunks a stream, buffering off, as language
models need it). The proxy has one core for itself, upstream and load generator share the other. Rounds of both sides
alternate, and the median of the ratios counts: single rounds differ by a half on a shared machine. The last line is
one JSON object with ``requests_vs_nginx`` and ``chunks_vs_nginx``.

Needs a C compiler, ``taskset``, and Debian's ``nginx-light`` and ``wrk`` (``apt-get install nginx-light wrk``).
nginx is started from a configuration of its own in a temporary folder, never as a service.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import uvicorn
import uvloop

from corral_core.model import Model, ModelSpec
from corral_core.names import canonical
from corral_server.gateway.app import Gateway
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.directory import Endpoint, Entry
from corral_server.gateway.serving import rest_collector, uvicorn_config

PROXY_CORE, LOAD_CORE = 0, 1
CHUNKS = 64
NEEDED = ("nginx", "wrk", "cc", "taskset")

NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_buffer_size 1m; keepalive_requests 1000000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream runner {{ server 127.0.0.1:{upstream}; keepalive 512; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{
      proxy_pass http://runner; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""

WRK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"model":"tiny","messages":[{"role":"user","content":"Why is the sky blue?"}],"stream":STREAM}'
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--serve", nargs=2, type=int, metavar=("PORT", "UPSTREAM"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(*options.serve)
        return
    missing = [program for program in NEEDED if shutil.which(program) is None]
    if missing:
        sys.exit(f"bench/gateway.py needs {', '.join(missing)}: apt-get install nginx-light wrk gcc util-linux")
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.rounds, seconds=options.seconds, connections=options.connections)


def measure(folder: Path, rounds: int, *, seconds: int, connections: int) -> None:
    for name, streamed in (("requests", "false"), ("chunks", "true")):
        (folder / f"{name}.lua").write_text(WRK.replace("STREAM", streamed))
    with upstream(folder) as port, nginx(folder, port) as nginx_port, gateway(port) as gateway_port:
        ports = {"nginx": nginx_port, "gateway": gateway_port}
        results = {}
        for kind in ("requests", "chunks"):
            load = Load(folder / f"{kind}.lua", connections, seconds)
            for each in ports.values():
                load.run(each, seconds=1)
            results[kind] = [{name: load.run(each) for name, each in ports.items()} for _ in range(rounds)]
    report(results)


def report(results: dict[str, list[dict[str, float]]]) -> None:
    figures: dict[str, object] = {}
    print(f"{'':10} {'nginx /s':>12} {'gateway /s':>12} {'ratio':>7}   rounds")
    for kind, measured in results.items():
        factor = CHUNKS if kind == "chunks" else 1
        nginx_rate, gateway_rate = (
            statistics.median(each[name] for each in measured) * factor for name in ("nginx", "gateway")
        )
        ratios = [each["gateway"] / each["nginx"] for each in measured]
        ratio = statistics.median(ratios)
        shown = " ".join(f"{each:.2f}" for each in ratios)
        print(f"{kind:10} {nginx_rate:12,.0f} {gateway_rate:12,.0f} {ratio:7.2f}   {shown}")
        figures[f"{kind}_vs_nginx"] = round(ratio, 3)
        figures |= {f"{kind}_nginx": round(nginx_rate), f"{kind}_gateway": round(gateway_rate)}
    print(json.dumps(figures))


class Load:
    """wrk with one script."""

    def __init__(self, script: Path, connections: int, seconds: int) -> None:
        self._arguments = ["-t1", f"-c{connections}", "-s", str(script)]
        self._seconds = seconds

    def run(self, port: int, *, seconds: int | None = None) -> float:
        """Requests a second. A single failed request makes the figure worthless, so it ends the program."""
        command = ["wrk", *self._arguments, f"-d{seconds or self._seconds}s", f"http://127.0.0.1:{port}/api/chat"]
        done = subprocess.run(pinned(LOAD_CORE, command), capture_output=True, text=True, check=True)
        found = re.search(r"Requests/sec:\s*([\d.]+)", done.stdout)
        if found is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
            sys.exit(f"requests failed:\n{done.stdout}{done.stderr}")
        return float(found[1])


@contextlib.contextmanager
def upstream(folder: Path) -> Iterator[int]:
    program = folder / "upstream"
    source = Path(__file__).with_name("upstream.c")
    subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-o", str(program), str(source)], check=True)
    with process(
        pinned(LOAD_CORE, [str(program), str(CHUNKS)]), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        yield int(child.stdout.readline())


@contextlib.contextmanager
def nginx(folder: Path, upstream_port: int) -> Iterator[int]:
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, upstream=upstream_port, port=port))
    with process(pinned(PROXY_CORE, ["nginx", "-e", str(folder / "error.log"), "-c", str(configuration)])):
        wait_for(port)
        yield port


@contextlib.contextmanager
def gateway(upstream_port: int) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, __file__, "--serve", str(port), str(upstream_port)]
    with process(pinned(PROXY_CORE, command)):
        wait_for(port)
        yield port


@contextlib.contextmanager
def process(
    command: Sequence[str], *, stdin: int | None = None, stdout: int | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(command, stdin=stdin, stdout=stdout)
    try:
        with child:
            try:
                yield child
            finally:
                child.terminate()
                child.wait(10)
    finally:
        if child.poll() is None:
            child.kill()


def pinned(core: int, command: Sequence[str]) -> list[str]:
    return ["taskset", "-c", str(core), *command]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def serve(port: int, upstream_port: int) -> None:
    """The gateway as in production, over one Model whose runner is the upstream."""
    config = GatewayConfig(host="127.0.0.1", port=port, drain_timeout=1.0)
    server = uvicorn.Server(uvicorn_config(Gateway(OneModel(upstream_port), config), config))
    rest_collector()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve())


class OneModel:
    """A Directory with one Model that never changes."""

    def __init__(self, port: int) -> None:
        spec = ModelSpec(source="file:///none.gguf")
        model = Model(name="tiny", namespace="default", created=0.0, generation=1, uid="tiny", spec=spec)
        endpoint = Endpoint("runner", "127.0.0.1", port, 10_000)
        self._entry = Entry(model, ("tiny:latest",), "0" * 64, 0.0, None, (endpoint,))

    def find(self, name: str) -> Entry | None:
        return self._entry if canonical(name) in self._entry.names else None

    def get(self, key: str) -> Entry | None:
        return self._entry if key == self._entry.key else None

    def entries(self) -> Sequence[Entry]:
        return (self._entry,)

    def subscribe(self, changed: Callable[[str], None]) -> None:
        """Nothing changes."""

    def demand(self, key: str, waiting: int, oldest: float | None) -> None:
        """Nobody listens."""

    def settled(self) -> bool:
        return True


if __name__ == "__main__":
    main()
