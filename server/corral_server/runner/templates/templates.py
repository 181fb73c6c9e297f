"""Chat templates: render the messages of a chat into a prompt, as Hugging Face's tokenizers do.

The template comes from the GGUF or the request. One that does not compile or fails raises ChatTemplateError for the
request that needs it. Ollama's own templates are in Go's template language: they are detected and rendered by
``go.prompting``, because rendering them as Jinja would silently give a different prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property, partial
from typing import NoReturn

from jinja2 import Template
from jinja2.exceptions import TemplateError, TemplateSyntaxError

from corral_server.runner.templates.go.prompting import GoTemplate
from corral_server.runner.templates.go.tokens import UnsupportedTemplate
from corral_server.runner.templates.history import Message as Message
from corral_server.runner.templates.history import MessageStyle, merge_system_messages, normalize_messages
from corral_server.runner.templates.limits import SIZE_LIMIT, TemplateLimit, check_characters, text_size
from corral_server.runner.templates.sandbox import TemplateSandbox

CONTENT_ONLY = (
    "{% for message in messages %}{{ message['content'] }}{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
)
"""Template of a model without one: the contents of the messages, as in Ollama."""

_PROBE: Sequence[Message] = (
    {"role": "user", "content": "x"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call00000", "function": {"name": "f", "arguments": {"probe": "x"}}}],
    },
    {"role": "tool", "content": "x", "tool_call_id": "call00000"},
    {"role": "user", "content": "x"},
)
"""Chat with a tool call, rendered to see how a template writes the arguments."""

_TEXT = "probe-of-a-text"
"""Content of a message, rendered to see in which form a template takes it."""

_GO = re.compile(
    r"\{\{-?\s*(?:/\*|\$\w*|\.\s*-?\}\}|\.[A-Za-z_]\w*|if\s+[.$(\w]|(?:range|with|template|block|define)\s+[.$\"]"
    r"|[a-z]\w*\s+\.[A-Z]|(?:end|else|break|continue)\s*(?:-?\}\}|if\b))[^}]{0,40}"
)
"""Beginnings of actions in Go's template language that are no Jinja expressions."""


class ChatTemplateError(Exception):
    """The template cannot be used.

    ``is_client_error``: the template came with the request, or it rejected the messages.
    """

    def __init__(self, message: str, *, is_client_error: bool = False) -> None:
        super().__init__(message)
        self.is_client_error = is_client_error


class _RaisedByTemplate(TemplateError):
    """The template called ``raise_exception`` to reject the messages."""


class ChatTemplate:
    """A compiled template. Rendering is safe from any thread."""

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        """Never raises; errors in the template are raised when it is rendered."""
        self.source = source
        self._special_tokens = {"bos_token": bos, "eos_token": eos}
        self._error: str | None = None
        self._template: Template | None = None
        self._go: GoTemplate | None = None
        try:
            _check_characters(source)
            if find_go_construct(source):
                self._go = _parse_go(source)
            else:
                self._template = _compile(source)
        except ChatTemplateError as error:
            self._error = str(error)

    @property
    def problem(self) -> str | None:
        """Why no chat can be rendered, None if the template compiles."""
        return self._error

    @property
    def special_tokens(self) -> Mapping[str, str]:
        """The texts of the model's ``bos`` and ``eos`` tokens."""
        return {"bos": self._special_tokens["bos_token"], "eos": self._special_tokens["eos_token"]}

    def render(
        self,
        messages: Sequence[Message],
        *,
        prompt_for_answer: bool = True,
        variables: Mapping[str, object] | None = None,
        tools: Sequence[Mapping[str, object]] = (),
    ) -> str:
        """Return the prompt. Raises ChatTemplateError.

        A final assistant message stays open, so that the model continues it.
        """
        if self._go is not None:
            normalized = normalize_messages(messages, MessageStyle())
            return _run_go(partial(self._go.render, normalized, tools=tools, variables=variables or {}))
        if self._template is None:
            raise ChatTemplateError(self._error or "the chat template is invalid")
        style = self._style if any(message.get("tool_calls") for message in messages) else MessageStyle()
        style = replace(style, typed_content=self._takes_only_parts)
        normalized = normalize_messages(messages, style)
        is_continuation = bool(messages) and messages[-1].get("role") == "assistant"
        values = {
            **self._special_tokens,
            **(variables or {}),
            "messages": normalized,
            "tools": [dict(tool) for tool in tools] or None,
            "documents": None,
            "add_generation_prompt": prompt_for_answer and not is_continuation,
        }
        text = _render_with_fallback(self._template, values)
        return _without_end_of_message(text, str(messages[-1].get("content") or "")) if is_continuation else text

    def insert(self, prompt: str, suffix: str, variables: Mapping[str, object]) -> str:
        """Return the prompt for the text between prompt and suffix. Raises ChatTemplateError."""
        if self._go is None or not self._go.takes_suffix:
            raise ChatTemplateError(self._error or "the template has no .Suffix", is_client_error=True)
        return _run_go(partial(self._go.insert, prompt, suffix, variables))

    @cached_property
    def _takes_only_parts(self) -> bool:
        """Whether the template leaves out a text that is not in a list of parts, as some of vision models do."""
        return not self._shows_text(MessageStyle()) and self._shows_text(MessageStyle(typed_content=True))

    def _shows_text(self, style: MessageStyle) -> bool:
        assert self._template is not None, "used only while a template is rendered"
        messages = normalize_messages(({"role": "user", "content": _TEXT},), style)
        values = {**self._special_tokens, "messages": messages, "tools": None, "add_generation_prompt": True}
        try:
            return _TEXT in _render(self._template, values)
        except ChatTemplateError:
            return False

    @cached_property
    def _style(self) -> MessageStyle:
        """Style of the template, detected by rendering a probe.

        Most templates encode arguments as JSON; some concatenate them as JSON text.
        """
        short_ids = "length != 9" in self.source
        assert self._template is not None, "used only while a template is rendered"
        for text_arguments in (False, True):
            style = MessageStyle(text_arguments, short_ids)
            values = {**self._special_tokens, "messages": normalize_messages(_PROBE, style), "tools": None}
            try:
                if '{"probe"' in _render(self._template, values):
                    return style
            except ChatTemplateError:  # it cannot concatenate a text and an object
                continue
        return MessageStyle(short_ids=short_ids)


def find_go_construct(source: str) -> str | None:
    """Return the first construct of Go's template language in a template; None if it is Jinja."""
    found = _GO.search(source)
    return found[0].strip() if found else None


def _check_characters(source: str) -> None:
    try:
        check_characters(source)
    except TemplateLimit as error:
        raise ChatTemplateError(str(error)) from error


def _parse_go(source: str) -> GoTemplate:
    try:
        return GoTemplate(source)
    except TemplateLimit as error:
        raise ChatTemplateError(str(error)) from error
    except (UnsupportedTemplate, RecursionError) as error:
        raise _unsupported(error) from error


def _run_go(run: Callable[[], str]) -> str:
    try:
        return run()
    except TemplateLimit as error:
        raise ChatTemplateError(str(error)) from error
    except (UnsupportedTemplate, RecursionError) as error:
        raise _unsupported(error) from error


def _unsupported(error: Exception) -> ChatTemplateError:
    text = str(error) or type(error).__name__
    return ChatTemplateError(
        f"the template is written in Go's template language and uses an unsupported construct: {text}"
    )


def _compile(source: str) -> Template:
    try:
        return _SANDBOX.compile_limited(source)
    except TemplateLimit as error:
        raise ChatTemplateError(str(error)) from error
    except TemplateSyntaxError as error:
        raise ChatTemplateError(f"the chat template is invalid at line {error.lineno}: {error.message}") from error
    except (TemplateError, RecursionError, ValueError, SyntaxError, MemoryError) as error:
        raise ChatTemplateError(f"the chat template is invalid: {error or type(error).__name__}") from error


def _render_with_fallback(template: Template, values: Mapping[str, object]) -> str:
    """Render; on failure try once more without ``tools``, or with the system message merged into the user's."""
    try:
        return _render(template, values)
    except ChatTemplateError as error:
        other = dict(values)
        if not error.is_client_error and values["tools"] is None:
            del other["tools"]
        elif error.is_client_error and (messages := merge_system_messages(values["messages"])):
            other["messages"] = messages
        else:
            raise
        try:
            return _render(template, other)
        except ChatTemplateError:
            raise error from None


def _render(template: Template, values: Mapping[str, object]) -> str:
    try:
        return _SANDBOX.render(template, values)
    except _RaisedByTemplate as error:
        raise ChatTemplateError(str(error), is_client_error=True) from error
    except TemplateLimit as error:
        raise ChatTemplateError(str(error)) from error
    except Exception as error:  # a template can call nearly any operation with any values
        raise ChatTemplateError(f"the chat template failed: {error or type(error).__name__}") from error


def _without_end_of_message(text: str, content: str) -> str:
    """Return the text up to the end of its last message."""
    at = text.rfind(content.strip())
    return text[: at + len(content.strip())] if at >= 0 else text


def _raise_exception(message: object) -> NoReturn:
    raise _RaisedByTemplate(str(message)[:1000])


def _strftime_now(format: object) -> str:
    text = str(format)
    if len(text) > 200:
        raise TemplateLimit("the format of strftime_now is too long")
    return datetime.now().astimezone().strftime(text)


def _tojson(
    value: object,
    ensure_ascii: bool = False,
    *,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    if isinstance(value, Iterator):
        value = list(value)
    if text_size(value) * (1 + min(indent or 0, 64)) > SIZE_LIMIT or (indent or 0) > 64:
        raise TemplateLimit("the output of tojson is too long")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _sandbox() -> TemplateSandbox:
    sandbox = TemplateSandbox()
    sandbox.filters["tojson"] = _tojson
    sandbox.globals["raise_exception"] = _raise_exception
    sandbox.globals["strftime_now"] = _strftime_now
    return sandbox


_SANDBOX = _sandbox()
