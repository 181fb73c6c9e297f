"""Runner process without a model that implements the runner's contract, for tests of the supervisor.

Its behaviour is configured by a JSON object in the Model's ``spec.system``:

    fail          exit at once with this termination message
    fail_unless   do not fail if this file exists
    load_s        seconds that loading takes; it never ends if negative
    silent        accept connections and send nothing
    stubborn      ignore SIGTERM
    keep_alive_s  seconds of inactivity until the runner status reports expiry (300)
    slots         number of slots (1)

The prompt of ``/api/generate`` may be ``hold:<file>`` (respond once the file exists), ``wait:<seconds>``, ``crash`` or
``fail GPU``.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

HEARTBEAT = 0.5


@dataclass
class RunnerState:
    name: str
    behaviour: dict[str, object]
    loaded: bool = False
    draining: bool = False
    device_failure: str = ""
    in_flight: int = 0
    connections: int = 0
    last_end: float | None = None
    idle_since: float = 0.0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def number(self, key: str, default: float) -> float:
        value = self.behaviour.get(key, default)
        assert isinstance(value, int | float)
        return value

    def notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def status(self) -> bytes:
        now, keep_alive = time.time(), self.number("keep_alive_s", 300)
        expires = self.idle_since + keep_alive if self.loaded and not self.in_flight and keep_alive >= 0 else None
        status = {
            "in_flight": self.in_flight,
            "waiting": 0,
            "slots": int(self.number("slots", 1)) if self.loaded else 0,
            "loaded": self.loaded,
            "draining": self.draining,
            "device_failure": self.device_failure,
            "keep_alive_s": keep_alive,
            "idle_s": None if self.last_end is None else now - self.last_end,
            "expires_in_s": None if expires is None else expires - now,
            "size_bytes": 1000,
            "vram_bytes": 0,
            "context_length": 2048,
            "progress": 1.0 if self.loaded else 0.0,
        }
        return json.dumps(status).encode() + b"\n"


def event(name: str, **fields: object) -> None:
    print(json.dumps({"ts": time.time(), "level": "info", "event": name, **fields}), flush=True)


async def handle(state: RunnerState, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    state.connections += 1
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split(" ", 2)
        length = next((int(line[15:]) for line in head.lower().split("\r\n") if line.startswith("content-length:")), 0)
        body = await reader.readexactly(length)
        if path.startswith("/activity?watch"):
            state.connections -= 1
            try:
                await watch(state, writer)
            finally:
                state.connections += 1
        elif path == "/activity":
            await answer(writer, 200, state.status())
        elif method == "POST":
            await serve(state, writer, body)
        else:
            await answer(writer, 404, b"not found")
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        pass  # the client disconnected, or the process ends
    finally:
        state.connections -= 1
        state.notify()
        writer.close()


def wait_for_file(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


async def answer(writer: asyncio.StreamWriter, status: int, body: bytes, extra: str = "") -> None:
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{extra}\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def watch(state: RunnerState, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        changed, line = state.changed, state.status()
        writer.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        await writer.drain()
        try:
            async with asyncio.timeout(HEARTBEAT):
                await changed.wait()
        except TimeoutError:
            continue


async def serve(state: RunnerState, writer: asyncio.StreamWriter, body: bytes) -> None:
    if state.draining or not state.loaded:
        reason = "draining" if state.draining else "loading"
        await answer(writer, 503, b'{"error":"not serving"}', f"corral-retry: {reason}\r\n")
        return
    prompt = str(json.loads(body).get("prompt", ""))
    state.in_flight += 1
    state.notify()
    try:
        if prompt == "crash":
            os._exit(3)
        if prompt == "fail GPU":
            state.draining, state.device_failure = True, "GPU 0 is lost"
        if prompt.startswith("hold:"):
            await asyncio.to_thread(wait_for_file, Path(prompt[5:]))
        if prompt.startswith("wait:"):
            await asyncio.sleep(float(prompt[5:]))
        response = {"response": f"{state.name} says {prompt}", "pid": os.getpid(), "done": True}
        await answer(writer, 200, json.dumps(response).encode())
    finally:
        state.in_flight -= 1
        state.last_end = state.idle_since = time.time()
        state.notify()


async def load(state: RunnerState) -> None:
    event("loading")
    seconds = state.number("load_s", 0)
    await asyncio.sleep(seconds if seconds >= 0 else 3600)
    state.loaded, state.idle_since = True, time.time()
    event("loaded")
    state.notify()


async def run(state: RunnerState, listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, (lambda: None) if state.behaviour.get("stubborn") else stop.set)
    if state.behaviour.get("silent"):
        await stop.wait()
        return
    server = await asyncio.start_server(lambda reader, writer: handle(state, reader, writer), sock=listener)
    event("listening")
    loading = asyncio.create_task(load(state))
    await stop.wait()
    loading.cancel()
    state.draining = True
    state.notify()
    while state.in_flight:
        await state.changed.wait()
    await asyncio.sleep(0.05)  # requests that are on their way receive a 503
    server.close()
    while state.connections:
        await state.changed.wait()


def end_with_parent(descriptor: int) -> None:
    def wait() -> None:
        os.read(descriptor, 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def fails(behaviour: dict[str, object]) -> bool:
    unless = behaviour.get("fail_unless")
    return "fail" in behaviour and not (isinstance(unless, str) and Path(unless).exists())


def main() -> None:
    end_with_parent(int(os.environ["CORRAL_PARENT_FD"]))
    model = json.loads(os.environ["CORRAL_MODEL"] + os.environ.get("CORRAL_MODEL_2", ""))
    behaviour = json.loads(model["spec"].get("system") or "{}")
    if fails(behaviour):
        print("warning of a library", file=sys.stderr, flush=True)
        Path(os.environ["CORRAL_TERMINATION_LOG"]).write_text(f"{behaviour['fail']}\n")
        sys.exit(1)
    with socket.socket(fileno=int(os.environ["CORRAL_LISTEN_FD"])) as listener:
        asyncio.run(run(RunnerState(model["name"], behaviour), listener))


if __name__ == "__main__":
    main()
