"""Throughput of the gateway compared with nginx as a proxy of the same upstream, one core each, in one run.

    python bench/gateway.py [--rounds 5] [--seconds 4] [--connections 64]

Measures whole requests/s, and streamed chunks/s (64 chunks per stream, without buffering, as language models need it).
The proxy has one core; upstream and load generator share the other. Rounds of the sides alternate, and the result is
the median of their ratios: single rounds differ by up to 50 % on a shared machine. ``cpu_us`` is the CPU time of the
proxy per request, or per stream; on a busy machine it is more reliable than the rates. Then single requests, 200 per
second, go to the upstream and to each proxy in turn, to measure the latency that a proxy adds.

``gateway`` is compiled, as in the images (``scripts/compiled.py``); ``python`` is the same code as a checkout runs it.
If ``smg`` is installed (``pip install sglang-router``), that router is measured in the same run. The last line is a
JSON object with ``requests_vs_nginx``, ``chunks_vs_nginx`` and ``added_ms``.

Needs a C compiler, ``taskset``, and Debian's ``nginx-light`` and ``wrk`` (``apt-get install nginx-light wrk``). nginx
is started with its own configuration in a temporary folder, never as a service.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.gateway_latency import BODY, latency
from corral_core.model.model import Model, ModelSpec
from corral_core.model.name_index import EVERYWHERE, NameIndex, Scope
from corral_server.gateway.app import Gateway
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.directory.directory import Endpoint, FoundModel, ModelEntry, ObservedState
from corral_server.gateway.server import GatewayServer, tune_garbage_collector, uvicorn_config
from scripts import compiled
from tests.support.ports import free_port

PROXY_CORE, LOAD_CORE = 0, 1
CHUNKS = 64
RATE = 200
"""Rate of the single requests, per second."""
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
    with contextlib.ExitStack() as stack:
        bare = stack.enter_context(upstream(folder))
        sides = {"nginx": stack.enter_context(nginx(folder, bare))}
        for name, environment in (("gateway", compiled.environment()), ("python", None)):
            sides[name] = stack.enter_context(gateway(bare, environment))
        if shutil.which("smg"):
            sides["smg"] = stack.enter_context(smg(folder, bare))
        figures: dict[str, object] = {}
        for kind in ("requests", "chunks"):
            load = Load(folder / f"{kind}.lua", connections, seconds)
            for each in sides.values():
                load.run(each, seconds=1)
            figures |= report(kind, [{name: load.run(each) for name, each in sides.items()} for _ in range(rounds)])
        figures |= added({"upstream": bare, **{name: each.port for name, each in sides.items()}}, rounds * seconds)
    print(json.dumps(figures))


def report(kind: str, measured: list[dict[str, Round]]) -> dict[str, object]:
    """Print and return the medians of all sides, and their ratios to nginx."""
    factor = CHUNKS if kind == "chunks" else 1
    figures: dict[str, object] = {}
    print(f"{kind:10} {'/s':>12} {'cpu_us':>8} {'ratio':>7}   rounds")
    for name in measured[0]:
        rate = statistics.median(each[name].rate for each in measured) * factor
        cpu = statistics.median(each[name].cpu_us for each in measured)
        ratios = [each[name].rate / each["nginx"].rate for each in measured]
        shown = " ".join(f"{each:.2f}" for each in ratios)
        print(f"{name:10} {rate:12,.0f} {cpu:8.1f} {statistics.median(ratios):7.2f}   {shown}")
        figures |= {f"{kind}_{name}": round(rate), f"{kind}_{name}_cpu_us": round(cpu, 1)}
        if name == "gateway":
            figures[f"{kind}_vs_nginx"] = round(statistics.median(ratios), 3)
    return figures


def added(ports: dict[str, int], seconds: float) -> dict[str, object]:
    """Prints and gives what the proxies add to the bare upstream's time. smg has no path that all sides know."""
    os.sched_setaffinity(0, {LOAD_CORE})
    times = latency({name: port for name, port in ports.items() if name != "smg"}, rate=RATE, seconds=seconds)
    bare = times.pop("upstream")
    print(f"upstream   p50 {bare['p50']:.2f} ms, p99 {bare['p99']:.2f} ms at {RATE} requests a second")
    result = {name: {share: round(each[share] - bare[share], 2) for share in bare} for name, each in times.items()}
    for name, each in result.items():
        print(f"{name:10} p50 {each['p50']:+.2f} ms, p99 {each['p99']:+.2f} ms")
    return {"added_ms": result["gateway"], "nginx_added_ms": result["nginx"]}


@dataclass(frozen=True)
class Side:
    """A proxy: its address, the path of its requests, and its process."""

    port: int
    pid: int
    path: str = "/api/chat"

    def cpu(self) -> float:
        """Return the CPU time of the process and its workers, in seconds."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in (self.pid, *children)]
        return sum(int(fields[11]) + int(fields[12]) for fields in stats) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Round:
    """Requests per second, and CPU time per request in microseconds."""

    rate: float
    cpu_us: float


class Load:
    """wrk with a script."""

    def __init__(self, script: Path, connections: int, seconds: int) -> None:
        self._arguments = ["-t1", f"-c{connections}", "-s", str(script)]
        self._seconds = seconds

    def run(self, side: Side, *, seconds: int | None = None) -> Round:
        """Run the load once. A single failed request invalidates the result and ends the program."""
        seconds = seconds or self._seconds
        command = ["wrk", *self._arguments, f"-d{seconds}s", f"http://127.0.0.1:{side.port}{side.path}"]
        before = side.cpu()
        done = subprocess.run(pinned(LOAD_CORE, command), capture_output=True, text=True, check=True)
        found = re.search(r"Requests/sec:\s*([\d.]+)", done.stdout)
        if found is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout:
            sys.exit(f"requests failed:\n{done.stdout}{done.stderr}")
        rate = float(found[1])
        return Round(rate, (side.cpu() - before) / (rate * seconds) * 1e6)


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
def nginx(folder: Path, upstream_port: int) -> Iterator[Side]:
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, upstream=upstream_port, port=port))
    with process(pinned(PROXY_CORE, ["nginx", "-e", str(folder / "error.log"), "-c", str(configuration)])) as child:
        wait_for(port)
        yield Side(port, child.pid)


@contextlib.contextmanager
def smg(folder: Path, upstream_port: int) -> Iterator[Side]:
    """SGLang's router, written in Rust; it serves only OpenAI's paths."""
    port, worker = free_port(), f"http://127.0.0.1:{upstream_port}"
    command = ["smg", "launch", "--worker-urls", worker, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--prometheus-port", str(free_port()), "--log-level", "error", "--policy", "round_robin"]
    with (folder / "smg.log").open("wb") as log, process(pinned(PROXY_CORE, command), stdout=log.fileno()) as child:
        side = Side(port, child.pid, "/v1/chat/completions")
        wait_for(port)
        wait_until_routed(side)
        yield side


def wait_until_routed(side: Side) -> None:
    """Wait until smg has found its workers; it listens before that."""
    deadline = time.monotonic() + 60
    request = urllib.request.Request(
        f"http://127.0.0.1:{side.port}{side.path}", BODY, {"content-type": "application/json"}
    )
    while True:
        try:
            urllib.request.urlopen(request, timeout=5).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
        else:
            return


@contextlib.contextmanager
def gateway(upstream_port: int, environment: Mapping[str, str] | None) -> Iterator[Side]:
    port = free_port()
    command = [sys.executable, __file__, "--serve", str(port), str(upstream_port)]
    with process(pinned(PROXY_CORE, command), environment=environment) as child:
        wait_for(port)
        yield Side(port, child.pid)


@contextlib.contextmanager
def process(
    command: Sequence[str],
    *,
    stdin: int | None = None,
    stdout: int | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen(command, stdin=stdin, stdout=stdout, env=environment)
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
    """Run the gateway with one Model whose runner is the upstream."""
    config = GatewayConfig(host="127.0.0.1", port=port, drain_timeout=1.0)
    gateway = Gateway(OneModel(upstream_port), config)
    server = GatewayServer(uvicorn_config(gateway, config), gateway)
    tune_garbage_collector()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(server.serve())


class OneModel:
    """Directory with one Model that never changes."""

    def __init__(self, port: int) -> None:
        spec = ModelSpec(source="file:///none.gguf")
        model = Model(name="tiny", namespace="default", created=0.0, generation=1, uid="tiny", spec=spec)
        self._names = NameIndex()
        self._names.put(model)
        endpoint = Endpoint("runner", "127.0.0.1", port, 10_000)
        self._entry = ModelEntry(model, ("tiny:latest",), "0" * 64, 0.0, None, (endpoint,))

    def find(self, name: str, scope: Scope = EVERYWHERE) -> FoundModel | None:
        found = self._names.find(name, scope)
        return None if found is None else FoundModel(self._entry, found.name)

    def sees(self, scope: Scope, namespace: str) -> bool:
        return self._names.sees(scope, namespace)

    def displayed_names(self, key: str, scope: Scope) -> tuple[str, ...]:
        return self._names.displayed_names(key, scope)

    def get(self, key: str) -> ModelEntry | None:
        return self._entry if key == self._entry.key else None

    def observed(self, key: str) -> ObservedState | None:
        return ObservedState("Ready", "")

    def entries(self) -> Sequence[ModelEntry]:
        return (self._entry,)

    def subscribe(self, changed: Callable[[str], None]) -> None:
        """Do nothing: the Model never changes."""

    def report_demand(self, key: str, pending: int, oldest: float | None) -> None:
        """Do nothing: there is no operator."""

    def want_context(self, key: str, length: int) -> None:
        """No runner grows here."""

    def want_pull(self, key: str, wanted: bool) -> None:
        """Do nothing: there is no operator."""

    def synced(self) -> bool:
        return True


if __name__ == "__main__":
    main()
