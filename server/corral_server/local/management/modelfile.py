"""Modelfile: what ``corral create`` reads, in Ollama's grammar (``parser/parser.go``).

- A command and its value are on one line. A value in ``"`` or triple quotes can have several: it ends with the first
  line that ends with these quotes.
- Commands are in any letter case; lines that begin with ``#`` are comments.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from corral_core.base.errors import CorralError

_COMMANDS: Final = (
    "from", "license", "template", "system", "adapter", "draft", "renderer", "parser", "parameter", "message",
    "requires",
)  # fmt: skip
_ROLES: Final = ("system", "user", "assistant")
_UNUSED: Final = frozenset({"draft", "renderer", "parser", "requires"})
_COMMAND: Final = re.compile(r"[ \t\r\n]*(?:#[^\r\n]*|([^ \t\r\n]+)(?:[ \t]+|(?=[\r\n])|\Z))")
_WORD: Final = re.compile(r"([A-Za-z0-9_]+)[ \t]+")
_LINE: Final = re.compile(r"[^\r\n]*")


class InvalidModelfile(CorralError):
    """A Modelfile with an error; the text has the line."""


@dataclass(frozen=True, slots=True)
class Modelfile:
    """``source`` and ``adapters`` are names of models or paths. ``unused`` are the commands without effect here."""

    source: str
    adapters: tuple[str, ...] = ()
    template: str | None = None
    system: str | None = None
    licenses: tuple[str, ...] = ()
    parameters: dict[str, object] = field(default_factory=dict)
    messages: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()


def parse_modelfile(text: str) -> Modelfile:
    """Parse a Modelfile. Raises InvalidModelfile."""
    sources: list[str] = []
    texts: dict[str, list[str]] = {}
    parameters: dict[str, object] = {}
    messages: list[tuple[str, str]] = []
    for command, word, value in _commands(text):
        if command == "from":
            sources.append(value)
        elif command == "parameter":
            _set_parameter(parameters, word.lower(), value)
        elif command == "message":
            messages.append((word, value))
        else:
            texts.setdefault(command, []).append(value)
    if not sources:
        raise InvalidModelfile("no FROM line")
    return Modelfile(
        source=sources[-1],
        adapters=tuple(texts.get("adapter", ())[-1:]),
        template=next(iter(texts.get("template", ())[-1:]), None),
        system=next(iter(texts.get("system", ())[-1:]), None),
        licenses=tuple(texts.get("license", ())),
        parameters=parameters,
        messages=tuple(messages),
        unused=tuple(sorted(_UNUSED.intersection(texts))),
    )


def _commands(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield each command in lower case, the name of its parameter or role, and its value."""
    position = 0
    while (found := _COMMAND.match(text, position)) is not None:
        position = found.end()
        if found[1] is None:
            continue
        command, word = found[1].lower(), ""
        if command not in _COMMANDS:
            allowed = ", ".join(f'"{name}"' for name in _COMMANDS)
            raise _error(text, found.start(1), f"command must be one of {allowed}, not {found[1][:40]!r}")
        if command in ("parameter", "message"):
            named = _WORD.match(text, position)
            if named is None:
                raise _error(text, position, f"{command.upper()} needs a name and a value")
            word, position = named[1], named.end()
            if command == "message" and word not in _ROLES:
                raise _error(text, named.start(), 'message role must be one of "system", "user", or "assistant"')
        value, position = _value(text, position)
        yield command, word, value


def _value(text: str, start: int) -> tuple[str, int]:
    """Return the value that begins at ``start``, and where it ends. Raises InvalidModelfile."""
    opening = text[start : start + 3]
    quotes = '"""' if opening == '"""' else '"' if opening.startswith('"') else ""
    end = start
    while True:
        line = _LINE.match(text, end)
        assert line is not None  # it matches the empty text
        value = text[start : line.end()].strip()
        if not quotes or (len(value) >= 2 * len(quotes) and value.endswith(quotes)):
            return value.removeprefix(quotes).removesuffix(quotes) if quotes else value, line.end()
        if line.end() >= len(text):
            raise _error(text, start, f"the closing {quotes} is missing")
        end = line.end() + 1


def _set_parameter(parameters: dict[str, object], name: str, text: str) -> None:
    """Set a parameter: the type of a number or boolean is that of JSON, and ``stop`` collects texts."""
    if name == "stop":
        stops = parameters.setdefault(name, [])
        assert isinstance(stops, list)
        stops.append(text)
        return
    try:
        value = json.loads(text)
    except ValueError:
        value = text
    parameters[name] = value if isinstance(value, int | float) and math.isfinite(value) else text


def _error(text: str, position: int, message: str) -> InvalidModelfile:
    line = len(re.findall(r"\r\n|[\r\n]", text[:position])) + 1
    return InvalidModelfile(f"(line {line}): {message}")
