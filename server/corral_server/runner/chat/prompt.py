"""Prompts of chats: rendering, tokenizing, and truncation to the context as in Ollama's ``server/prompt.go``.

The functions are CPU-bound and must be called outside the event loop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from corral_server.runner.chat.long_text import tokenize_ends
from corral_server.runner.chat.prompt_images import PromptImages, images_of
from corral_server.runner.engine.generation import Engine
from corral_server.runner.engine.prepared_image import PreparedImage
from corral_server.runner.images.limits import DEFAULT_LIMITS, ImageLimits
from corral_server.runner.templates.templates import ChatTemplate, Message
from corral_server.runner.tool_calls.detection import detect_format
from corral_server.runner.tool_calls.tool import Tool, tool_function, tool_name
from corral_server.wire.json_encoding import compact_json


def tokenize_prompt(engine: Engine, text: str) -> list[int]:
    """Tokenize a prompt with the model's special tokens. A BOS token that the template wrote is not doubled.

    Of a text that is far longer than the context only the two ends are tokenized; see ``long_text``.
    """
    return _without_second_bos(engine, text, tokenize_ends(engine, text, add_special=True))


def count_tokens(engine: Engine, text: str) -> int:
    """Return the number of tokens of a prompt of any length, as ``tokenize_prompt`` tokenizes it."""
    tokens = engine.tokenize(text, add_special=True, parse_special=True)
    return len(_without_second_bos(engine, text, tokens))


def _without_second_bos(engine: Engine, text: str, tokens: list[int]) -> list[int]:
    if engine.adds_bos and tokens[:1] == tokens[1:2] and engine.bos_text and text.startswith(engine.bos_text):
        return tokens[1:]
    return tokens


class RenderedPrompt(NamedTuple):
    """A rendered prompt and its tokens, with the cells of its images."""

    text: str
    tokens: list[int]
    images: tuple[PreparedImage, ...] = ()

    @property
    def length(self) -> int:
        """Cells of the KV cache that the prompt takes; an image may take more of them than positions."""
        return len(self.tokens) + sum(image.extra_cells for image in self.images)


def render_chat_prompt(
    engine: Engine,
    template: ChatTemplate,
    messages: Sequence[Message],
    *,
    truncate: bool,
    context_length: int,
    variables: Mapping[str, object],
    tools: Sequence[Tool] = (),
    limits: ImageLimits = DEFAULT_LIMITS,
) -> RenderedPrompt:
    """Render and tokenize a chat with its images.

    With ``truncate`` the oldest messages except system messages are dropped until the prompt is shorter than the
    context. The last message is always kept, so the result may still be too long. Raises ChatTemplateError, and for an
    image ApiError and InvalidPrompt.
    """
    images = PromptImages(engine, images_of(messages), limits)

    def attempt(start: int) -> RenderedPrompt:
        kept = [m for index, m in enumerate(messages) if index >= start or m.get("role") == "system"]
        text = template.render(kept, variables=variables, tools=tools)
        if tools and not any(tool_name(tool) in text for tool in tools):
            text = template.render(
                with_tool_instructions(kept, tools, template.source), variables=variables, tools=tools
            )
        images.check_places(text, images_of(kept))
        return RenderedPrompt(text, *images.tokenize(text, tokenize_prompt))

    whole = attempt(0)
    low, high = 1, len(messages) - 1
    if not truncate or whole.length < context_length or high < low:
        return whole
    while low < high:  # bisection: every message dropped makes the prompt shorter
        middle = (low + high) // 2
        if attempt(middle).length < context_length:
            high = middle
        else:
            low = middle + 1
    return attempt(low)


def with_tool_instructions(messages: Sequence[Message], tools: Sequence[Tool], source: str) -> list[Message]:
    """Add a system message that describes the tools, for a template that renders tool calls and ignores ``tools``."""
    before, after = detect_format(source).call_frame("NAME")
    described = "\n".join(compact_json(tool_function(tool)) for tool in tools)
    note = f"You may call these functions:\n{described}\nTo call one, answer with:\n{before}{{...}}{after}"
    if messages and messages[0].get("role") == "system":
        first = {**messages[0], "content": f"{messages[0].get('content') or ''}\n\n{note}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": note}, *messages]


def marker_tokens(engine: Engine, markers: Iterable[str]) -> frozenset[int]:
    """Return the tokens of those markers that are one token each.

    The engine returns the text of these tokens even where they are control tokens, whose text it otherwise omits.
    """
    tokens = (engine.tokenize(text, add_special=False, parse_special=True) for text in markers)
    return frozenset(found[0] for found in tokens if len(found) == 1)
