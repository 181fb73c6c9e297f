"""How much time, text and work one rendering of a template may take, and what is measured before it runs.

The limits are far above what chats need and far below what hurts: see ``sandbox`` for what is charged.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar

from jinja2.exceptions import TemplateRuntimeError

TIME_LIMIT = 2.0
"""Seconds that one rendering may take; a real one takes less than a millisecond for each message."""
SIZE_LIMIT = 16 * 1024 * 1024
"""Characters that one rendering may put out, or hold in one text."""
WORK_LIMIT = 8 * SIZE_LIMIT
"""Characters of all texts that one rendering may make on its way."""
MAX_TEMPLATE = 1024 * 1024
"""Characters of a template."""
_MAX_BITS = 256
_PART = 16
"""Characters that every part of a nested value counts for at least, so that measuring one ends soon."""


class TemplateLimit(TemplateRuntimeError):
    """A template that took too long or wrote too much."""


class Budget:
    """What is left for one rendering; every method raises TemplateLimit when it is used up."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + TIME_LIMIT
        self._size = 0
        self._work = 0

    def tick(self) -> None:
        if time.monotonic() > self._deadline:
            raise TemplateLimit(f"the chat template runs longer than {TIME_LIMIT:g} s")

    def charge(self, size: int) -> None:
        """For text that is put out."""
        self.tick()
        self._size += size
        check(self._size)

    def spend(self, result: object) -> None:
        """For a text or list that an operation made: a template may keep all of them."""
        self.tick()
        if isinstance(result, str | list | tuple):
            self._work += len(result) * (1 if isinstance(result, str) else _PART)
            if self._work > WORK_LIMIT:
                raise TemplateLimit("the chat template makes too many texts and lists")


budget: ContextVar[Budget] = ContextVar("template_budget")
"""The budget of the rendering that runs in this thread."""


def measure(value: object) -> int:
    """About the characters of ``str(value)``, found without making it. Raises TemplateLimit beyond the limit."""
    total, rest = 0, [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            total += len(item)
        elif isinstance(item, dict):
            rest.extend((*item.keys(), *item.values()))
        elif isinstance(item, list | tuple):
            rest.extend(item)
        total += _PART if rest else 2
        if total > SIZE_LIMIT:
            check(total)
    return total


def check(size: int) -> None:
    if size > SIZE_LIMIT:
        raise TemplateLimit(f"the chat template writes more than {SIZE_LIMIT} characters")


def replace(value: object, old: object, new: object, count: int | None = None) -> str:
    measure([value, old, new])
    text, before, after = str(value), str(old), str(new)
    check(len(text) + text.count(before) * max(0, len(after) - len(before)))
    return text.replace(before, after, -1 if count is None else count)


def join(items: Iterable[object], d: object = "", attribute: str | None = None) -> str:
    parts = [_attribute(item, attribute) for item in items]
    measure([d, parts])
    check(len(parts) * len(str(d)))
    return str(d).join(map(str, parts))


def indent(text: object, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """As jinja2's filter."""
    margin = width if isinstance(width, str) else " " * min(max(width, 0), 256)
    lines = str(text).split("\n")
    check(measure(text) + len(lines) * len(margin))
    indented = [margin + line if line.strip() or blank else line for line in lines[1:]]
    return "\n".join([(margin if first else "") + lines[0], *indented])


def join_with(separator: str, items: Iterable[object]) -> str:
    return join(items, separator)


def _attribute(item: object, name: str | None) -> object:
    return item if name is None else item.get(name, "") if isinstance(item, Mapping) else ""


def string(value: object) -> str:
    measure(value)
    return str(value)


def __check_add(left: object, right: object) -> None:
    measure([left, right])


def __check_multiply(left: object, right: object) -> None:
    for value, times in ((left, right), (right, left)):
        if isinstance(value, str | list | tuple) and isinstance(times, int):
            check(measure(value) * max(times, 0))
    __check_bits(left, right)


def __check_power(left: object, right: object) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > _MAX_BITS:
        raise TemplateLimit("the chat template computes a number that is too large")


def __check_remainder(left: object, _right: object) -> None:
    if isinstance(left, str):
        raise TemplateLimit("the chat template formats a text with %, which is not supported; use ~ to join texts")


def __check_bits(left: object, right: object) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > _MAX_BITS:
        raise TemplateLimit("the chat template computes a number that is too large")


OPERATOR_CHECKS: Mapping[str, Callable[[object, object], None]] = {
    "+": __check_add,
    "*": __check_multiply,
    "**": __check_power,
    "%": __check_remainder,
}
"""What is looked at before an operator runs."""
