"""Chat templates: the Jinja of a GGUF (or of a request) turned into a prompt, as Hugging Face's tokenizers do.

A template that does not compile or fails while it runs is a ``TemplateFailed`` for the one request that needs it.
Ollama's own templates are written in Go's template language; such a one is told apart and goes to ``gotemplate``,
because rendering it as Jinja would silently give another prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial
from typing import NoReturn

from jinja2 import Template
from jinja2.exceptions import TemplateError, TemplateSyntaxError

from corral_server.runner.gotemplate.prompting import GoTemplate
from corral_server.runner.gotemplate.tokens import Unsupported
from corral_server.runner.history import Message as Message
from corral_server.runner.history import Style, as_templates_expect, without_system
from corral_server.runner.sandbox import Sandbox
from corral_server.runner.template_limits import MAX_TEMPLATE, SIZE_LIMIT, TemplateLimit, measure

PLAIN = (
    "{% for message in messages %}{{ message['content'] }}{% if not loop.last %}{{ '\\n\\n' }}{% endif %}{% endfor %}"
)
"""For a model without a chat template: the contents alone, as Ollama prompts such a model."""

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
"""A chat with a call, to see how a template writes its arguments."""

_GO = re.compile(
    r"\{\{-?\s*(?:/\*|\$\w*|\.\s*-?\}\}|\.[A-Za-z_]\w*|if\s+[.$(\w]|(?:range|with|template|block|define)\s+[.$\"]"
    r"|[a-z]\w*\s+\.[A-Z]|(?:end|else|break|continue)\s*(?:-?\}\}|if\b))[^}]{0,40}"
)
"""What an action of Go's templates begins with and no expression of Jinja does."""


class TemplateFailed(Exception):
    """The template cannot be used; ``clients_fault`` when it is the request's, or refused the messages itself."""

    def __init__(self, message: str, *, clients_fault: bool = False) -> None:
        super().__init__(message)
        self.clients_fault = clients_fault


class _Raised(TemplateError):
    """``raise_exception`` was called: the messages do not suit the template."""


class ChatTemplate:
    """One compiled template; rendering is safe from any thread."""

    def __init__(self, source: str, *, bos: str = "", eos: str = "") -> None:
        """Never fails: what is wrong with the template is said when it is used."""
        self.source = source
        self._specials = {"bos_token": bos, "eos_token": eos}
        self._broken: str | None = None
        self._template: Template | None = None
        self._go: GoTemplate | None = None
        try:
            if go_construct(source):
                self._go = _parse_go(source)
            else:
                self._template = _compile(source)
        except TemplateFailed as error:
            self._broken = str(error)

    def with_source(self, source: str) -> ChatTemplate:
        """Another template for the same model."""
        return ChatTemplate(source, bos=self._specials["bos_token"], eos=self._specials["eos_token"])

    def render(
        self,
        messages: Sequence[Message],
        *,
        prompt_for_answer: bool = True,
        variables: Mapping[str, object] | None = None,
        tools: Sequence[Mapping[str, object]] = (),
    ) -> str:
        """The prompt text. A last message of the assistant is left open, so that the model goes on with it.

        Raises TemplateFailed.
        """
        if self._go is not None:
            expected = as_templates_expect(messages, Style())
            return _run_go(partial(self._go.render, expected, tools=tools, variables=variables or {}))
        if self._template is None:
            raise TemplateFailed(self._broken or "the chat template is broken")
        style = self._style if any(message.get("tool_calls") for message in messages) else Style()
        expected = as_templates_expect(messages, style)
        goes_on = bool(messages) and messages[-1].get("role") == "assistant"
        values = {
            **self._specials,
            **(variables or {}),
            "messages": expected,
            "tools": [dict(tool) for tool in tools] or None,
            "documents": None,
            "add_generation_prompt": prompt_for_answer and not goes_on,
        }
        text = _tried(self._template, values)
        return _opened(text, str(messages[-1].get("content") or "")) if goes_on else text

    def insert(self, prompt: str, suffix: str, variables: Mapping[str, object]) -> str:
        """The prompt for what goes between prompt and suffix. Raises TemplateFailed."""
        if self._go is None or not self._go.takes_suffix:
            raise TemplateFailed(self._broken or "the template has no .Suffix", clients_fault=True)
        return _run_go(partial(self._go.insert, prompt, suffix, variables))

    @cached_property
    def _style(self) -> Style:
        """Found by trying: most templates write arguments as JSON, some join texts that must be JSON already."""
        short_ids = "length != 9" in self.source
        assert self._template is not None, "asked for while a template is rendered"
        for text_arguments in (False, True):
            style = Style(text_arguments, short_ids)
            values = {**self._specials, "messages": as_templates_expect(_PROBE, style), "tools": None}
            try:
                if '{"probe"' in _render(self._template, values):
                    return style
            except TemplateFailed:  # it cannot join a text and an object
                continue
        return Style(short_ids=short_ids)


def go_construct(source: str) -> str | None:
    """The first thing in a template that is Go's template language and not Jinja."""
    found = _GO.search(source)
    return found[0].strip() if found else None


def _parse_go(source: str) -> GoTemplate:
    if len(source) > MAX_TEMPLATE:
        raise TemplateFailed(f"the template has more than {MAX_TEMPLATE} characters")
    try:
        return GoTemplate(source)
    except (Unsupported, RecursionError) as error:
        raise _unsupported(error) from error


def _run_go(run: Callable[[], str]) -> str:
    try:
        return run()
    except TemplateLimit as error:
        raise TemplateFailed(str(error)) from error
    except (Unsupported, RecursionError) as error:
        raise _unsupported(error) from error


def _unsupported(error: Exception) -> TemplateFailed:
    text = str(error) or type(error).__name__
    return TemplateFailed(f"the template is written in Go's template language and has what is not supported: {text}")


def _compile(source: str) -> Template:
    try:
        return _SANDBOX.limited(source)
    except TemplateSyntaxError as error:
        raise TemplateFailed(f"the chat template is broken at line {error.lineno}: {error.message}") from error
    except (TemplateError, RecursionError, ValueError, SyntaxError, MemoryError) as error:
        raise TemplateFailed(f"the chat template is broken: {error or type(error).__name__}") from error


def _tried(template: Template, values: Mapping[str, object]) -> str:
    """Some templates want no ``tools`` at all where there are none, and some have no place for a system message."""
    try:
        return _render(template, values)
    except TemplateFailed as error:
        other = dict(values)
        if not error.clients_fault and values["tools"] is None:
            del other["tools"]
        elif error.clients_fault and (messages := without_system(values["messages"])):
            other["messages"] = messages
        else:
            raise
        try:
            return _render(template, other)
        except TemplateFailed:
            raise error from None


def _render(template: Template, values: Mapping[str, object]) -> str:
    try:
        return _SANDBOX.render(template, values)
    except _Raised as error:
        raise TemplateFailed(str(error), clients_fault=True) from error
    except Exception as error:  # a template can call nearly any operation with any values
        raise TemplateFailed(f"the chat template failed: {error or type(error).__name__}") from error


def _opened(text: str, content: str) -> str:
    """The text up to the end of its last message."""
    at = text.rfind(content.strip())
    return text[: at + len(content.strip())] if at >= 0 else text


def _raise_exception(message: object) -> NoReturn:
    raise _Raised(str(message)[:1000])


def _strftime_now(form: object) -> str:
    text = str(form)
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
    if measure(value) * (1 + min(indent or 0, 64)) > SIZE_LIMIT or (indent or 0) > 64:
        raise TemplateLimit("tojson would write too much")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _sandbox() -> Sandbox:
    sandbox = Sandbox()
    sandbox.filters["tojson"] = _tojson
    sandbox.globals["raise_exception"] = _raise_exception
    sandbox.globals["strftime_now"] = _strftime_now
    return sandbox


_SANDBOX = _sandbox()
