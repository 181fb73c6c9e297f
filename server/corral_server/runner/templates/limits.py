"""Limits on a chat template and on the time, output and memory of one rendering.

The limits are far above what chats need and far below what harms other requests. Of 70 published templates the largest
has 16,500 characters and 2,200 words within its tags. ``sandbox`` and ``go/execute`` charge the budget.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar

from jinja2.exceptions import TemplateRuntimeError
from jinja2.utils import Namespace

TIME_LIMIT = 2.0
"""Seconds for one rendering. Real templates take less than a millisecond for each message."""
SIZE_LIMIT = 16 * 1024 * 1024
"""Maximum number of characters of the output, and of one text."""
MEMORY_LIMIT = 128 * 1024 * 1024
"""Maximum memory in bytes of all intermediate values; a template may keep them all."""
VALUES_LIMIT = 250_000
"""Maximum number of values in a list, tuple or dict that a template makes, with those within its items."""
MAX_TEMPLATE_CHARACTERS = 64 * 1024
"""Maximum number of characters of a template."""
MAX_TEMPLATE_WORDS = 8000
"""Maximum number of words and marks within the tags of a template. Compiling takes 0.1 to 0.3 ms and 8 KB for each."""
_ITEM_BYTES = 56
"""Memory of a small value in a container."""
_MAX_BITS = 256
_PART = 16
"""Minimum number of characters charged for each part of a nested value, which bounds the time to measure one."""


class TemplateLimit(TemplateRuntimeError):
    """A template exceeded a limit."""


class RenderBudget:
    """Remaining time, output and work of one rendering. Every method raises TemplateLimit when a limit is exceeded."""

    def __init__(self) -> None:
        self._deadline = time.monotonic() + TIME_LIMIT
        self._size = 0
        self._memory = 0

    def tick(self) -> None:
        if time.monotonic() > self._deadline:
            raise TemplateLimit(f"the chat template runs longer than {TIME_LIMIT:g} s")

    def charge(self, size: int) -> None:
        """Charge text that is written to the output."""
        self.tick()
        self._size += size
        check_size(self._size)

    def spend(self, result: object) -> None:
        """Charge the memory of a value that an operation created, because a template may keep all of them."""
        self.tick()
        if isinstance(result, str):
            self._allocate(sys.getsizeof(result))
        elif isinstance(result, list | tuple | dict):
            self._allocate(sys.getsizeof(result) + _ITEM_BYTES * len(result))

    def spend_parts(self, parts: object) -> None:
        """Charge the texts of a list that an operation has cut from another text."""
        if isinstance(parts, list | tuple):
            self._allocate(sum(map(sys.getsizeof, parts)))

    def _allocate(self, size: int) -> None:
        self._memory += size
        if self._memory > MEMORY_LIMIT:
            raise TemplateLimit(f"the chat template creates more than {MEMORY_LIMIT >> 20} MiB of intermediate values")


class Composite:
    """A value of parts that is no list or mapping."""

    __slots__ = ()

    def text_parts(self) -> Sequence[object]:
        """Return the values that its text consists of."""
        raise NotImplementedError


current_budget: ContextVar[RenderBudget] = ContextVar("template_budget")
"""Budget of the rendering in this thread."""


def text_size(value: object) -> int:
    """Return the approximate length of ``str(value)`` without creating it. Raises TemplateLimit over SIZE_LIMIT.

    A value that a template has nested in itself a few dozen times can have a text without end.
    """
    if isinstance(value, str):
        check_size(len(value))
        return len(value)
    total, rest = 0, [value]
    while rest:
        item = rest.pop()
        if isinstance(item, str):
            total += len(item)
        else:
            rest.extend(_parts(item))
        total += _PART if rest else 2
        if total > SIZE_LIMIT:
            check_size(total)
    return total


_VIEWS: tuple[type[Iterable[object]], ...] = (type({}.keys()), type({}.values()), type({}.items()))


def _parts(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return (*value.keys(), *value.values())
    if isinstance(value, list | tuple):
        return value
    if isinstance(value, Composite):
        return value.text_parts()
    if isinstance(value, Namespace):
        attributes: dict[str, object] = value._Namespace__attrs  # its text has all of them
        return attributes.values()
    return value if isinstance(value, _VIEWS) else ()


def check_nesting(value: object) -> None:
    """Check a container that a template made: comparing and hashing take time in proportion to its values.

    A value that it contains twice counts twice, with all of its own.
    """
    count, rest = 0, [value]
    while rest:
        item = rest.pop()
        if isinstance(item, list | tuple):
            rest.extend(item)
        elif isinstance(item, dict):
            rest.extend(item.values())
            count += len(item)
        count += 1
        if count + len(rest) > VALUES_LIMIT:
            raise TemplateLimit(f"the chat template makes a list of more than {VALUES_LIMIT} values")


def check_characters(source: str) -> None:
    if len(source) > MAX_TEMPLATE_CHARACTERS:
        raise TemplateLimit(
            f"the chat template has {len(source)} characters, at most {MAX_TEMPLATE_CHARACTERS} are allowed"
        )


def check_words(words: int) -> None:
    if words > MAX_TEMPLATE_WORDS:
        raise TemplateLimit(f"the chat template has more than {MAX_TEMPLATE_WORDS} words within its tags")


def check_size(size: int) -> None:
    if size > SIZE_LIMIT:
        raise TemplateLimit(f"the chat template writes more than {SIZE_LIMIT} characters")


def replace(value: object, old: object, new: object, count: int | None = None) -> str:
    text_size([value, old, new])
    text, before, after = str(value), str(old), str(new)
    check_size(len(text) + text.count(before) * max(0, len(after) - len(before)))
    return text.replace(before, after, -1 if count is None else count)


def join(items: Iterable[object], d: object = "", attribute: str | None = None) -> str:
    parts = [_attribute(item, attribute) for item in items]
    text_size([d, parts])
    check_size(len(parts) * len(str(d)))
    return str(d).join(map(str, parts))


def indent(text: object, width: int | str = 4, first: bool = False, blank: bool = False) -> str:
    """jinja2's filter of this name."""
    margin = width if isinstance(width, str) else " " * min(max(width, 0), 256)
    lines = str(text).split("\n")
    check_size(text_size(text) + len(lines) * len(margin))
    indented = [margin + line if line.strip() or blank else line for line in lines[1:]]
    return "\n".join([(margin if first else "") + lines[0], *indented])


def join_with(separator: str, items: Iterable[object]) -> str:
    return join(items, separator)


def _attribute(item: object, name: str | None) -> object:
    return item if name is None else item.get(name, "") if isinstance(item, Mapping) else ""


def string(value: object) -> str:
    text_size(value)
    return str(value)


def _check_add(left: object, right: object) -> None:
    text_size([left, right])


def _check_multiply(left: object, right: object) -> None:
    for value, times in ((left, right), (right, left)):
        if isinstance(value, str | list | tuple) and isinstance(times, int):
            check_size(text_size(value) * max(times, 0))
    _check_bits(left, right)


def _check_power(left: object, right: object) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * abs(right) > _MAX_BITS:
        raise TemplateLimit("the chat template computes a number that is too large")


def _check_remainder(left: object, _right: object) -> None:
    if isinstance(left, str):
        raise TemplateLimit("the chat template formats a string with %, which is not supported; use ~ to join strings")


def _check_bits(left: object, right: object) -> None:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() + right.bit_length() > _MAX_BITS:
        raise TemplateLimit("the chat template computes a number that is too large")


OPERATOR_CHECKS: Mapping[str, Callable[[object, object], None]] = {
    "+": _check_add,
    "*": _check_multiply,
    "**": _check_power,
    "%": _check_remainder,
}
"""Checks before an operator runs."""
