"""A gateway as a process of its own, with models in memory, that says how it is when it is asked.

``python bench/gateway_process.py UPSTREAM [--moving SEED]`` prints its port; then, for each line on its input, one JSON
object. All models have the one runner UPSTREAM. With ``--moving`` models come, go, fail, get and lose their runners all
the time, until a line says ``rest``: then none is left.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from corral_server.gateway.app import Gateway
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.directory.directory import ModelEntry
from corral_server.gateway.server import GatewayServer, raise_open_file_limit, tune_garbage_collector, uvicorn_config
from tests.support.gateway import MemoryDirectory, entry
from tests.support.waiting import auntil

STILL: Mapping[str, int] = {"one": 1, "open": 100_000, "quick": 100}
"""Slots of the models that stay."""
MOVING = tuple(f"moving{number}" for number in range(6))
STEPS = (0.01, 0.2)
"""Seconds between two changes."""


class Models(MemoryDirectory):
    def report_demand(self, key: str, pending: int, oldest: float | None) -> None:
        """Drop the demand: there is no operator, and a list of all reports would grow."""


def model(name: str, upstream: int, *, slots: int) -> ModelEntry:
    """Models that share a runner are given slots of it each, as if each had one of its own."""
    value = entry(name, upstream, slots=slots)
    return replace(value, endpoints=(replace(value.endpoints[0], id=name),))


async def _move(models: Models, upstream: int, seed: int) -> None:
    dice = random.Random(seed)
    while True:
        await asyncio.sleep(dice.uniform(*STEPS))
        value, fate = model(dice.choice(MOVING), upstream, slots=dice.randint(1, 8)), dice.random()
        if fate < 0.1:
            if models.get(value.key):
                models.remove(value.key)
        elif fate < 0.2:
            models.put(replace(value, unavailable_reason="its weights are missing"))
        elif fate < 0.4:
            models.put(replace(value, endpoints=()))
        else:
            models.put(value)


def serve(upstream: int, seed: int | None) -> None:
    models = Models()
    for name, slots in STILL.items():
        models.put(model(name, upstream, slots=slots))
    config = replace(GatewayConfig(host="127.0.0.1", port=0, drain_timeout=1.0), max_queue=64 if seed else 1_000_000)
    gateway = Gateway(models, config)
    server = GatewayServer(uvicorn_config(gateway, config), gateway)
    tune_garbage_collector()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(server, gateway, models, upstream=upstream, seed=seed))


async def _serve(server: GatewayServer, gateway: Gateway, models: Models, *, upstream: int, seed: int | None) -> None:
    loop = asyncio.get_running_loop()
    serving = loop.create_task(server.serve())
    mover = loop.create_task(_move(models, upstream, seed)) if seed is not None else None
    await auntil(lambda: server.started)
    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    print(server.servers[0].sockets[0].getsockname()[1], flush=True)
    while line := await commands.readline():
        if line.startswith(b"rest") and mover is not None:
            mover.cancel()
            for key in tuple(models.by_key):
                models.remove(key)
        print(json.dumps(state(server, gateway)), flush=True)
    server.should_exit = True
    await serving


def state(server: GatewayServer, gateway: Gateway) -> dict[str, int]:
    queue = gateway.dispatcher.queue
    status = Path("/proc/self/status").read_text().splitlines()
    return {
        "kib": int(next(line for line in status if "VmRSS" in line).split()[1]),
        "waiting": queue.pending,
        "in_use": sum(queue.slots_in_use(key) for key, _ in queue.model_queues()),
        "tasks": sum(not task.done() for task in asyncio.all_tasks()),
        "connections": len(server.server_state.connections),
        "files": sum(1 for _ in Path("/proc/self/fd").iterdir()),
    }


class GatewayProcess:
    """What one can ask of it. ``port`` is where it serves."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self._child = child
        self.port = int(self._read())

    def _read(self) -> str:
        assert self._child.stdout is not None
        return self._child.stdout.readline()

    def state(self, command: str = "") -> dict[str, int]:
        assert self._child.stdin is not None
        self._child.stdin.write(f"{command}\n")
        self._child.stdin.flush()
        value: dict[str, int] = json.loads(self._read())
        return value


@contextlib.contextmanager
def gateway_process(upstream: int, *arguments: str) -> Iterator[GatewayProcess]:
    command = [sys.executable, __file__, str(upstream), *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield GatewayProcess(child)
        finally:
            child.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("upstream", type=int)
    parser.add_argument("--moving", type=int, metavar="SEED")
    options = parser.parse_args()
    raise_open_file_limit()
    serve(options.upstream, options.moving)


if __name__ == "__main__":
    main()
