"""Completion requests: ``/api/generate`` and ``/v1/completions``; their checks, their prompt and their task."""

from __future__ import annotations

from dataclasses import dataclass

from corral_server.runner.chat import capabilities
from corral_server.runner.chat.generation_request import (
    PROMPT_TAIL_CHARACTERS,
    GenerationRequest,
    build_task,
    thinking_variables,
)
from corral_server.runner.chat.loaded_model import LoadedModel
from corral_server.runner.chat.long_text import keep_ends, tokenize_ends
from corral_server.runner.chat.options import GenerationOptions
from corral_server.runner.chat.prompt import tokenize_prompt
from corral_server.runner.chat.prompt_images import PromptImages, TokenizeText
from corral_server.runner.engine.generation import Engine, GenerationTask
from corral_server.runner.images.encoded import EncodedImage, text_with_images
from corral_server.runner.templates.client_template import ClientTemplate
from corral_server.runner.templates.templates import ChatTemplate, Message
from corral_server.runner.tool_calls.calls import ParserConfig
from corral_server.wire.errors import ApiError

TEMPLATES_REFUSED = (
    'this installation accepts no templates of requests (CORRAL_CLIENT_TEMPLATES=0): leave out "template", or set '
    "the template in the Model"
)


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """A prompt to complete. ``system`` and ``template`` replace the Model's; a ``raw`` prompt is not rendered.

    ``context`` are the tokens that an earlier response returned; they precede the prompt.
    """

    generation: GenerationRequest
    prompt: str
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: tuple[int, ...] = ()
    raw: bool = False
    images: tuple[EncodedImage, ...] = ()

    def thinks(self, loaded: LoadedModel) -> bool:
        """Return whether thinking is separated from the answer."""
        return not self.raw and capabilities.thinking_enabled(self.generation.think, loaded.metadata)


def check_completion_fields(completion: CompletionRequest) -> None:
    """Raises ApiError 400 with Ollama's text for fields that exclude each other."""
    if completion.raw and (completion.template or completion.system or completion.context):
        raise ApiError(400, "raw mode does not support template, system, or context")


def check_completion_capabilities(completion: CompletionRequest, loaded: LoadedModel) -> None:
    """Raises ApiError 400 with Ollama's text for a capability that the model lacks, in Ollama's order of checks.

    Raises ApiError 403 for a template where the installation accepts none.
    """
    model = completion.generation.model
    if completion.template and not loaded.accepts_templates:
        raise ApiError(403, TEMPLATES_REFUSED)
    capabilities.check_completion(loaded.metadata, model, "generate")
    if completion.suffix:
        capabilities.check_insert(loaded.metadata, model)
    capabilities.check_think(completion.generation.think, model, loaded.metadata)
    if completion.images:
        capabilities.check_images(loaded.engine.accepts_images, model)


def render_completion(loaded: LoadedModel, completion: CompletionRequest) -> str:
    """Render the prompt, without the tokens of ``context``. Raises ChatTemplateError.

    The Model's example messages precede a prompt without ``context`` (Ollama: ``GenerateHandler``).
    """
    prompt = text_with_images(completion.prompt, completion.images)
    if completion.raw:
        return prompt
    system = completion.system or loaded.system
    messages: list[Message] = [{"role": "system", "content": system}] if system else []
    if not completion.context:
        messages += loaded.messages
    messages.append({"role": "user", "content": prompt})
    variables = thinking_variables(completion.generation.think, thinks=completion.thinks(loaded))
    template: ChatTemplate | ClientTemplate = loaded.template
    if completion.template:
        template = ClientTemplate(completion.template, loaded.template.special_tokens)
    if completion.suffix:
        return template.insert(prompt, completion.suffix, variables)
    return template.render(messages, variables=variables)


def completion_task(loaded: LoadedModel, completion: CompletionRequest, options: GenerationOptions) -> GenerationTask:
    """Render and tokenize the prompt and build the engine's task. Raises as ``build_task``, and ChatTemplateError."""
    text = render_completion(loaded, completion)
    images = PromptImages(loaded.engine, completion.images, loaded.image_limits)
    images.check_places(text, completion.images)
    tokens, used = images.tokenize(text, _tokenizer(completion.context))
    parser_config = (
        None if completion.raw else ParserConfig(completion.thinks(loaded), (), text[-PROMPT_TAIL_CHARACTERS:])
    )
    return build_task(
        loaded,
        tokens,
        completion.generation,
        options=options,
        parser_config=parser_config,
        images=used,
    )


def _tokenizer(context: tuple[int, ...]) -> TokenizeText:
    """Return the tokenizer of a text that follows the tokens of an earlier response, if there are any."""

    def tokenize(engine: Engine, text: str) -> list[int]:
        return [*keep_ends(context, engine.context_length), *tokenize_ends(engine, text, add_special=False)]

    return tokenize if context else tokenize_prompt
