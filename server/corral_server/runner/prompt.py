"""From messages to the tokens that the engine is given, cut to the context as Ollama does.

Plain computation, run outside the event loop: a long chat takes a while to render and tokenize.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from corral_server.runner.delta_json import compact
from corral_server.runner.formats.families import format_of
from corral_server.runner.generation import Engine
from corral_server.runner.templates import ChatTemplate, Message
from corral_server.runner.tools import Tool, function_of, name_of


def tokens_of(engine: Engine, text: str) -> list[int]:
    """The tokens of a prompt text with the model's own special tokens; a BOS that a template wrote is not doubled."""
    tokens = engine.tokenize(text, add_special=True, parse_special=True)
    if engine.adds_bos and tokens[:1] == tokens[1:2] and engine.bos_text and text.startswith(engine.bos_text):
        return tokens[1:]
    return tokens


class ChatPrompt(NamedTuple):
    """What a chat became."""

    text: str
    tokens: list[int]


def chat_prompt(
    engine: Engine,
    template: ChatTemplate,
    messages: Sequence[Message],
    *,
    truncate: bool,
    variables: Mapping[str, object],
    tools: Sequence[Tool] = (),
) -> ChatPrompt:
    """The prompt of a chat. With ``truncate`` the oldest messages that are not the system's are dropped until it fits.

    The last message is always kept, so the result may still be too long. Raises TemplateFailed.
    """

    def attempt(start: int) -> ChatPrompt:
        kept = [m for index, m in enumerate(messages) if index >= start or m.get("role") == "system"]
        text = template.render(kept, variables=variables, tools=tools)
        if tools and not any(name_of(tool) in text for tool in tools):
            text = template.render(noted(kept, tools, template.source), variables=variables, tools=tools)
        return ChatPrompt(text, tokens_of(engine, text))

    whole = attempt(0)
    low, high = 1, len(messages) - 1
    if not truncate or len(whole.tokens) < engine.context_length or high < low:
        return whole
    while low < high:  # bisection: every message dropped makes the prompt shorter
        middle = (low + high) // 2
        if len(attempt(middle).tokens) < engine.context_length:
            high = middle
        else:
            low = middle + 1
    return attempt(low)


def noted(messages: Sequence[Message], tools: Sequence[Tool], source: str) -> list[Message]:
    """With a system message that tells of the tools, for a template that reads calls and never names the tools."""
    before, after = format_of(source).frame("NAME")
    described = "\n".join(compact(function_of(tool)) for tool in tools)
    note = f"You may call these functions:\n{described}\nTo call one, answer with:\n{before}{{...}}{after}"
    if messages and messages[0].get("role") == "system":
        first = {**messages[0], "content": f"{messages[0].get('content') or ''}\n\n{note}"}
        return [first, *messages[1:]]
    return [{"role": "system", "content": note}, *messages]


def marker_tokens(engine: Engine, markers: Iterable[str]) -> frozenset[int]:
    """The tokens of those texts that are one token each: where they are control tokens, they otherwise have no text."""
    tokens = (engine.tokenize(text, add_special=False, parse_special=True) for text in markers)
    return frozenset(found[0] for found in tokens if len(found) == 1)
