"""Runner application with a fake engine, served by uvicorn in a thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import httpx

from corral_core.base.names import canonical_name
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.contracts.source_defaults import NO_DEFAULTS, SourceDefaults
from corral_core.model.model import ModelSpec
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.runner.chat.options import GenerationOptions
from corral_server.runner.engine.generation import Engine
from corral_server.runner.lifecycle.keep_alive import KeepAlive
from corral_server.runner.lifecycle.process import open_listener
from corral_server.runner.lifecycle.state import RunnerState
from corral_server.runner.server import create_server
from corral_server.runner.templates.templates import ChatTemplate
from tests.support.sample_metadata import SMOLLM2_METADATA
from tests.support.waiting import until

T = TypeVar("T")

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
METADATA = replace(SMOLLM2_METADATA, size=1234, parameter_count=135_000_000, template=TEMPLATE)


def runner_state(
    engine: Engine | None = None,
    *,
    template: str = TEMPLATE,
    metadata: ModelMetadata = METADATA,
    spec: Mapping[str, object] = {},
    defaults: SourceDefaults = NO_DEFAULTS,
) -> RunnerState:
    """Return a state that has the model loaded if there is an engine."""
    model = ModelSpec.model_validate({"source": "package://weights/tiny.gguf", **spec})
    state = RunnerState("default/tiny", model, KeepAlive(300.0))
    if engine is not None:
        chat = ChatTemplate(template, bos=engine.bos_text, eos=engine.eos_text)
        options = GenerationOptions().merged(dict(model.parameters))
        adapters = frozenset(canonical_name(adapter.name) for adapter in model.adapters)
        loaded = LoadedModel(engine, metadata, chat, options, model.system or "", adapters)
        state.set_loaded(replace(loaded, defaults=defaults))
    return state


@dataclass
class ServedRunner:
    """A running server and a client for it; ``call`` runs a function in its event loop."""

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
def serving_state(state: RunnerState) -> Iterator[ServedRunner]:
    sock = open_listener("127.0.0.1", 0, None)
    server, loops = create_server(state), list[asyncio.AbstractEventLoop]()

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
    """Serve a loaded runner; ``more`` are arguments of ``runner_state``."""
    with serving_state(runner_state(engine, **more)) as runner:  # type: ignore[arg-type]  # checked by runner_state itself
        yield runner
