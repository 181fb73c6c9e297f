"""Chat requests of all APIs: their checks, their prompt and their task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral_server.runner.chat import capabilities
from corral_server.runner.chat.generation_request import (
    PROMPT_TAIL_CHARACTERS,
    GenerationRequest,
    build_task,
    thinking_variables,
)
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.runner.chat.options import GenerationOptions
from corral_server.runner.chat.prompt import RenderedPrompt, render_chat_prompt
from corral_server.runner.chat.prompt_images import images_of
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.templates.templates import Message
from corral_server.runner.tool_calls.calls import ParserConfig
from corral_server.runner.tool_calls.tool import AUTO_TOOL_CHOICE, Tool, ToolChoice, offered_tools


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """``messages`` is not empty. ``tool_choice`` is the request's tool choice."""

    generation: GenerationRequest
    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice = AUTO_TOOL_CHOICE

    @property
    def offered_tools(self) -> Sequence[Tool]:
        """The tools that are part of the prompt."""
        return offered_tools(self.tools, self.tool_choice)

    def thinks(self, loaded: LoadedModel) -> bool:
        """Return whether thinking is separated from the answer."""
        return capabilities.thinking_enabled(self.generation.think, loaded.metadata)


def check_chat_capabilities(chat: ChatRequest, loaded: LoadedModel) -> None:
    """Raises ApiError 400 with Ollama's text for a capability that the model lacks, in Ollama's order of checks."""
    model = chat.generation.model
    if chat.tools:
        capabilities.check_tools(loaded.metadata, model)
    capabilities.check_completion(loaded.metadata, model, "chat")
    capabilities.check_think(chat.generation.think, model, loaded.metadata)
    if images_of(chat.messages):
        capabilities.check_images(loaded.engine.accepts_images, model)


def render_chat(loaded: LoadedModel, options: GenerationOptions, *, chat: ChatRequest) -> RenderedPrompt:
    """Render and tokenize the prompt: the Model's system message, its example messages, those of the request.

    The prompt is truncated to the context length of ``options``. The system message is left out if the request begins
    with one (Ollama: ``ChatHandler`` in server/routes.go). Raises ChatTemplateError.
    """
    messages = [*loaded.messages, *chat.messages]
    if loaded.system and chat.messages[0].get("role") != "system":
        messages = [{"role": "system", "content": loaded.system}, *messages]
    variables = thinking_variables(chat.generation.think, thinks=chat.thinks(loaded))
    return render_chat_prompt(
        loaded.engine,
        loaded.template,
        messages,
        truncate=chat.generation.truncate,
        context_length=loaded.context_length(options),
        variables=variables,
        tools=chat.offered_tools,
        limits=loaded.image_limits,
    )


def chat_task(loaded: LoadedModel, chat: ChatRequest, options: GenerationOptions) -> GenerationTask:
    """Render and tokenize the prompt and build the engine's task. Raises as ``build_task``, and ChatTemplateError."""
    prompt = render_chat(loaded, options, chat=chat)
    parser_config = ParserConfig(chat.thinks(loaded), chat.offered_tools, prompt.text[-PROMPT_TAIL_CHARACTERS:])
    return build_task(
        loaded,
        prompt.tokens,
        chat.generation,
        options=options,
        parser_config=parser_config,
        must_call=chat.tool_choice.must_call,
        images=prompt.images,
    )
