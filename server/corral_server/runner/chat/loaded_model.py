"""The loaded model: engine, metadata, chat template and default options."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from corral_core.base.names import canonical_name
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.contracts.source_defaults import NO_DEFAULTS, SourceDefaults, SourceMessage
from corral_server.runner.chat.gateway_model_name import gateway_model_name
from corral_server.runner.chat.options import GenerationOptions
from corral_server.runner.engine.generation import Engine
from corral_server.runner.images.limits import DEFAULT_LIMITS, ImageLimits
from corral_server.runner.templates.templates import ChatTemplate, Message


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """The loaded model. ``options`` are the Model's parameters over Ollama's defaults.

    - ``adapters``: canonical names that select a LoRA adapter.
    - ``weights``: metadata of the weights alone; ``metadata`` differs from it where the Model has its own template.
    - ``file``: path of the weights.
    - ``accepts_templates``: whether a request may bring a chat template of its own.
    - ``image_limits``: limits of the images of a request.
    - ``defaults``: what the source brings; ``template``, ``options`` and ``system`` have it already.
    - ``examples``: the conversation that precedes the messages of every request, as Ollama's MESSAGE.
    """

    engine: Engine
    metadata: ModelMetadata
    template: ChatTemplate
    options: GenerationOptions
    system: str = ""
    adapters: frozenset[str] = frozenset()
    weights: ModelMetadata | None = None
    file: Path | None = None
    accepts_templates: bool = True
    image_limits: ImageLimits = DEFAULT_LIMITS
    defaults: SourceDefaults = NO_DEFAULTS
    examples: tuple[SourceMessage, ...] = ()

    @property
    def messages(self) -> list[Message]:
        """The example conversation as messages of a chat."""
        return [{"role": message.role, "content": message.content} for message in self.examples]

    def context_length(self, options: GenerationOptions) -> int:
        """Return the context length in tokens of a request with these options: at most that of a slot.

        A ``num_ctx`` below 4 counts as 4 (``GetRunner`` in Ollama's server/sched.go), 0 as none.
        """
        length = self.engine.context_length
        return min(max(4, options.num_ctx), length) if options.num_ctx else length

    def adapter_of(self, model: str) -> str:
        """Return the name of the adapter that the requested name selects; empty for the base model.

        ``model`` is the name in the request's body. If a gateway sent the request, the name that it checked counts.
        """
        if not self.adapters:
            return ""
        name = gateway_model_name.get() or canonical_name(model)
        return name if name in self.adapters else ""
