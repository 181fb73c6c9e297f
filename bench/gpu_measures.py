"""Measures of ``bench/gpu.py``, which runs this program with the Python and the libraries of its folder."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.engine_measures import OURS, TOPICS
from bench.engine_sides import CONTEXT, Side, ask, llamacpp, runner
from corral_core.base.json_fields import get_int, get_objects, get_str
from corral_core.weights.gguf_metadata import read_metadata
from corral_core.weights.load_config import LoadConfig
from corral_core.weights.memory_estimate import MIB, estimate_memory
from corral_server.system.compute_buffers import plan_compute_buffers
from corral_server.system.cores import available_cores
from corral_server.system.nvml import Nvml
from tests.support.tiny_model import write_tiny_model

VISIBLE = {"cuda": "CUDA_VISIBLE_DEVICES", "vulkan": "GGML_VK_VISIBLE_DEVICES"}
MAX_ROUNDS = 5
_MIG = re.compile(r"UUID: (MIG-[0-9a-f-]+)")


class OutOfTime(Exception):
    """The time of ``--seconds`` is over."""


@dataclass
class Bench:
    """``devices`` are names for the backend's variable; ``made`` is the result so far."""

    backend: str
    weights: Path
    devices: list[str]
    peer: str
    streams: list[int]
    tokens: int
    nvml: Nvml | None
    made: dict[str, object] = field(default_factory=dict)

    def visible(self, devices: Sequence[str]) -> Mapping[str, str]:
        return {VISIBLE[self.backend]: ",".join(devices)}

    def used(self) -> list[int]:
        """Return bytes in use of each GPU by NVML; none without it."""
        return [reading.device.used for reading in self.nvml.readings()] if self.nvml is not None else []

    @contextlib.contextmanager
    def runner(self, devices: Sequence[str], slots: int) -> Iterator[Side]:
        settings = self.visible(devices)
        threads = available_cores()
        with runner(self.weights, threads, slots=slots, gpus=len(devices), settings=settings) as side:
            yield side

    def predicted(self, gpus: int, slots: int) -> dict[str, object]:
        dims = read_metadata(self.weights, plan_compute_buffers).dimensions
        if dims is None:
            raise SystemExit(f"{self.weights} has no dimensions")
        estimate = estimate_memory(dims, LoadConfig(CONTEXT, slots), gpus=gpus)
        return {
            "predicted": [size // MIB for size in estimate.devices],
            "predicted_buffers": [gpu.engine // MIB for gpu in estimate.gpus],
        }


async def streams(sides: Sequence[Side], count: int, *, tokens: int, number: int) -> tuple[float, float]:
    """Return tokens/s and the mean time to first token of ``count`` concurrent requests, spread over the sides."""
    start = time.perf_counter()
    prompts = [f"{number}-{n}: write a very long story about {TOPICS[n % len(TOPICS)]}." for n in range(count)]
    asked = (ask(sides[n % len(sides)], prompt, tokens) for n, prompt in enumerate(prompts))
    replies = await asyncio.gather(*asked)
    seconds = time.perf_counter() - start
    return sum(reply.tokens for reply in replies) / seconds, statistics.mean(reply.first for reply in replies)


def rounds(
    groups: Mapping[str, Sequence[Side]],
    bench: Bench,
    into: dict[str, object],
    *,
    counts: Sequence[int],
    seconds: float,
) -> None:
    """Measure each group of sides in alternating rounds after a warm-up; the medians so far are in ``into``."""
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    end = time.monotonic() + seconds
    for number in range(MAX_ROUNDS + 1):
        if number > 1 and time.monotonic() > end:
            break
        for count in counts:
            for name in list(groups) if number % 2 else reversed(list(groups)):
                row = asyncio.run(streams(groups[name], count, tokens=bench.tokens, number=number))
                if number:
                    found.setdefault((name, count), []).append(row)
                    print(
                        f"{number:>5} {name:>10} {count:>3} streams {row[0]:>9.1f} tokens/s {row[1]:>8.3f} s",
                        flush=True,
                    )
        for (name, count), rows in found.items():
            figures = into.setdefault(name, {})
            assert isinstance(figures, dict)
            speed, first = (statistics.median(each) for each in zip(*rows, strict=True))
            figures[str(count)] = {"tokens_per_s": round(speed, 1), "ttft_s": round(first, 4)}


def memory(side: Side, bench: Bench, before: Sequence[int], *, gpus: int, slots: int) -> dict[str, object]:
    """Return MiB of each GPU: as predicted, in llama.cpp's buffers, and the growth by NVML since ``before``.

    ``predicted`` has the driver's part too and compares with ``nvml``, ``predicted_buffers`` with ``buffers``.
    """
    connection = http.client.HTTPConnection("127.0.0.1", side.port, timeout=30)
    try:
        connection.request("GET", "/activity")
        status = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    devices = get_objects(status, "offload", "devices")
    if not devices:
        raise SystemExit(f"the model is not on a GPU: {get_str(status, 'offload', 'reason') or 'no device'}")
    grown = growth(before, bench.used())
    made: dict[str, object] = {
        "devices": [get_str(device, "description") for device in devices],
        **bench.predicted(gpus, slots),
        "buffers": [round(get_int(device, "bytes") / MIB, 1) for device in devices],
    }
    return made | ({"nvml": grown} if grown else {})


def growth(before: Sequence[int], after: Sequence[int]) -> list[float]:
    """Return MiB of each GPU by NVML; none without it."""
    return [round(max(0, used - was) / MIB, 1) for was, used in zip(before, after, strict=True)]


def beside(bench: Bench, seconds: float) -> None:
    """Measure one GPU beside llama.cpp's server."""
    slots, device = max(bench.streams), bench.devices[:1]
    before = bench.used()
    with ExitStack() as stack:
        side = stack.enter_context(bench.runner(device, slots))
        bench.made["vram_mib"] = memory(side, bench, before, gpus=1, slots=slots)
        groups = {OURS: [side]}
        if bench.peer:
            settings = bench.visible(device)
            peer = llamacpp(
                bench.weights,
                available_cores(),
                slots=slots,
                gpu_layers=999,
                python=Path(bench.peer),
                settings=settings,
            )
            before = bench.used()
            groups["llama.cpp"] = [stack.enter_context(peer)]
            if before:
                bench.made["llamacpp_vram_mib"] = growth(before, bench.used())
        into: dict[str, object] = {}
        bench.made["streams"] = into
        rounds(groups, bench, into, counts=bench.streams, seconds=seconds)


def split(bench: Bench, seconds: float) -> None:
    """Measure the model over all GPUs by layers, on each MIG slice, or twice on one GPU."""
    slices = mig_slices() if bench.backend == "cuda" else []
    slots = max(bench.streams)
    made: dict[str, object] = {}
    bench.made["split"] = made
    with ExitStack() as stack:
        if len(slices) > 1:
            made |= {"kind": "mig", "devices": len(slices)}
            sides = [stack.enter_context(bench.runner([one], slots)) for one in slices]
        elif len(bench.devices) > 1:
            before = bench.used()
            sides = [stack.enter_context(bench.runner(bench.devices, slots))]
            made |= {"kind": "layers", "devices": len(bench.devices)}
            made["vram_mib"] = memory(sides[0], bench, before, gpus=len(bench.devices), slots=slots)
        else:
            made |= {"kind": "shared", "devices": 1}
            sides = [stack.enter_context(bench.runner(bench.devices, max(1, slots // 2))) for _ in range(2)]
        rounds({OURS: sides}, bench, made, counts=[slots], seconds=seconds)


def mig_slices() -> list[str]:
    """Return the uuids of the MIG devices of this machine."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
    except OSError:
        return []
    return _MIG.findall(listed.stdout)


def model(arguments: argparse.Namespace, work: Path) -> Path:
    if arguments.model == "tiny":
        return write_tiny_model(work)
    found = [Path(arguments.model)] if arguments.model else sorted(arguments.folder.glob("*.gguf"))
    if not found or not found[0].exists():
        raise SystemExit(f"no model: {arguments.model or arguments.folder} has no GGUF file")
    return found[0].resolve()


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    for name in ("backend", "model", "devices", "streams", "peer"):
        parser.add_argument(f"--{name}", default="")
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--seconds", type=int)
    return parser.parse_args()


def devices(arguments: argparse.Namespace, nvml: Nvml | None) -> list[str]:
    if arguments.devices:
        return list(arguments.devices.split(","))
    found = [str(reading.index) for reading in nvml.readings()] if nvml is not None else []
    if arguments.backend == "cuda" and not found:
        found = mig_slices()[:1]
        if not found:
            raise SystemExit("no NVIDIA GPU: NVIDIA's driver reports no device")
    return found or ["0"]


def out_of_time(number: int, frame: object) -> None:
    raise OutOfTime


def main() -> None:
    arguments = parsed()
    signal.signal(signal.SIGALRM, out_of_time)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.alarm(arguments.seconds)
    nvml = Nvml.open() if arguments.backend == "cuda" else None
    with tempfile.TemporaryDirectory(prefix="corral-gpu-") as work:
        bench = Bench(
            arguments.backend,
            model(arguments, Path(work)),
            devices(arguments, nvml),
            arguments.peer,
            [int(count) for count in arguments.streams.split(",")],
            arguments.tokens,
            nvml,
        )
        bench.made = {"backend": bench.backend, "model": bench.weights.name, "complete": False}
        with contextlib.suppress(OutOfTime):
            beside(bench, arguments.seconds * 0.4)
            split(bench, arguments.seconds * 0.2)
            bench.made["complete"] = True
        signal.alarm(0)
    print(json.dumps(bench.made))


if __name__ == "__main__":
    main()
