"""The runner's routes over a fake engine, served by a real uvicorn in a thread on a port of its own."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import httpx

from corral_core.facts import ModelFacts
from corral_core.model import ModelSpec
from corral_core.names import canonical
from corral_server.runner.generation import Engine
from corral_server.runner.keepalive import KeepAlive
from corral_server.runner.options import Options
from corral_server.runner.process import listener
from corral_server.runner.serving import server_of
from corral_server.runner.state import Loaded, RunnerState
from corral_server.runner.templates import ChatTemplate
from tests.support.waiting import until

T = TypeVar("T")

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
FACTS = ModelFacts(
    size=1234,
    family="llama",
    families=("llama",),
    parameter_size="135M",
    parameter_count=135_000_000,
    quantization_level="Q4_1",
    context_length=8192,
    embedding_length=576,
    capabilities=("completion",),
    template=TEMPLATE,
    info={"general.architecture": "llama", "tokenizer.ggml.tokens": None},
)


def runner_state(
    engine: Engine | None = None,
    *,
    template: str = TEMPLATE,
    facts: ModelFacts = FACTS,
    spec: Mapping[str, object] = {},
) -> RunnerState:
    """Loaded when there is an engine."""
    model = ModelSpec.model_validate({"source": "package://weights/tiny.gguf", **spec})
    state = RunnerState("default/tiny", model, KeepAlive(300.0))
    if engine is not None:
        chat = ChatTemplate(template, bos=engine.bos_text, eos=engine.eos_text)
        options = Options().updated(dict(model.parameters))
        adapters = frozenset(canonical(adapter.name) for adapter in model.adapters)
        state.now_loaded(Loaded(engine, facts, chat, options, model.system or "", adapters))
    return state


@dataclass
class ServedRunner:
    """``http`` speaks to it; ``call`` runs a function in its event loop, where the state may be touched."""

    state: RunnerState
    loop: asyncio.AbstractEventLoop
    http: httpx.Client
    port: int

    def call(self, function: Callable[[], T]) -> T:
        async def inside() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(inside(), self.loop).result(10)

    def post(self, path: str, body: object = None, *, raw: bytes | None = None) -> httpx.Response:
        return self.http.post(path, content=raw) if raw is not None else self.http.post(path, json=body)

    def active(self) -> int:
        return self.state.keep_alive.active


@contextlib.contextmanager
def served(state: RunnerState) -> Iterator[ServedRunner]:
    sock = listener("127.0.0.1", 0, None)
    server, loops = server_of(state), list[asyncio.AbstractEventLoop]()

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        await server.serve([sock])

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    port = sock.getsockname()[1]
    try:
        until(lambda: server.started, what="the server's start")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
            yield ServedRunner(state, loops[0], client, port)
    finally:
        loops[0].call_soon_threadsafe(state.close)
        server.should_exit = True
        thread.join(10)
        sock.close()
        assert not thread.is_alive(), "the server did not end"


@contextlib.contextmanager
def serving(engine: Engine, **more: object) -> Iterator[ServedRunner]:
    """A loaded runner; ``more`` goes to ``runner_state``."""
    with served(runner_state(engine, **more)) as runner:  # type: ignore[arg-type]  # checked by runner_state itself
        yield runner
