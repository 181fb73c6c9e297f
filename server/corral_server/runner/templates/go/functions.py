"""Functions of templates: Go's built-in ones that apply to chats, and Ollama's additions (``template/template.go``).

``and`` and ``or`` are in the executor, because they stop at the deciding argument.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from corral_server.runner.templates.go.tokens import UnsupportedTemplate
from corral_server.runner.templates.go.values import format_value, is_true, to_json, type_name

_VERB = re.compile(r"%(.)", re.DOTALL)


def _not(value: object) -> bool:
    return not is_true(value)


def _eq(first: object, *others: object) -> bool:
    """Return whether the first argument equals one of the others."""
    return any(_same(first, other) for other in others)


def _ne(left: object, right: object) -> bool:
    return not _same(left, right)


def _same(left: object, right: object) -> bool:
    """Compare values of one type; nil equals only nil."""
    if left is None or right is None:
        return left is right
    return _comparable(left, right) and left == right


def _comparable(left: object, right: object) -> bool:
    if type(left) is not type(right) or not isinstance(left, str | bool | int | float):
        raise UnsupportedTemplate(f"a comparison of {type_name(left)} with {type_name(right)}")
    return True


def _ordered(compare: Callable[[object, object], object]) -> Callable[..., object]:
    def compared(left: object, right: object) -> bool:
        if isinstance(left, bool):
            raise UnsupportedTemplate("an ordering of bools")
        return _comparable(left, right) and bool(compare(left, right))

    return compared


def _len(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, Mapping | Sequence):
        return len(value)
    raise UnsupportedTemplate(f"len of {type_name(value)}")


def _index(value: object, *keys: object) -> object:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, Sequence) and not isinstance(value, str) and type(key) is int:
            if not 0 <= key < len(value):
                raise UnsupportedTemplate(f"index {key} of a list of {len(value)}")
            value = value[key]
        else:
            raise UnsupportedTemplate(f"index of {type_name(value)}")
    return value


def _slice(value: object, *bounds: object) -> object:
    """Slice a list, or a string by its UTF-8 bytes as in Go."""
    if not isinstance(value, Sequence) or len(bounds) > 2:
        raise UnsupportedTemplate(f"slice of {type_name(value)}")
    data = value.encode() if isinstance(value, str) else value
    limits = [bound for bound in bounds if isinstance(bound, int)]
    start = limits[0] if limits else 0
    end = limits[1] if len(limits) == 2 else len(data)
    if len(limits) != len(bounds) or not 0 <= start <= end <= len(data):
        raise UnsupportedTemplate(f"slice from {start} to {end} of {type_name(value)} of {len(data)}")
    part = data[start:end]
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else part


def _print(*values: object) -> str:
    """Join values, with a space between two that are not strings, as ``fmt.Sprint``."""
    text = ""
    for index, value in enumerate(values):
        if index and not isinstance(value, str) and not isinstance(values[index - 1], str):
            text += " "
        text += format_value(value)
    return text


def _println(*values: object) -> str:
    return " ".join(map(format_value, values)) + "\n"


def _printf(format: object, *values: object) -> str:
    if not isinstance(format, str):
        raise UnsupportedTemplate(f"printf of {type_name(format)}")
    rest = list(values)

    def verb(found: re.Match[str]) -> str:
        if found[1] == "%":
            return "%"
        if found[1] not in "svdq" or not rest:
            raise UnsupportedTemplate(f'printf "%{found[1]}"')
        value = rest.pop(0)
        return to_json(format_value(value)) if found[1] == "q" else format_value(value)

    text = _VERB.sub(verb, format)
    if rest:
        raise UnsupportedTemplate(f"printf with {len(values)} values for {format[:40]!r}")
    return text


def _current_date(*_: object) -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d")


def _yesterday_date(*_: object) -> str:
    return (datetime.now().astimezone() - timedelta(days=1)).strftime("%Y-%m-%d")


FUNCTIONS: Mapping[str, Callable[..., object]] = {
    "not": _not,
    "eq": _eq,
    "ne": _ne,
    "lt": _ordered(operator.lt),  # type: ignore[arg-type]  # called with comparable values only
    "le": _ordered(operator.le),  # type: ignore[arg-type]
    "gt": _ordered(operator.gt),  # type: ignore[arg-type]
    "ge": _ordered(operator.ge),  # type: ignore[arg-type]
    "len": _len,
    "index": _index,
    "slice": _slice,
    "print": _print,
    "println": _println,
    "printf": _printf,
    "json": to_json,
    "currentDate": _current_date,
    "yesterdayDate": _yesterday_date,
}
NAMES = frozenset({*FUNCTIONS, "and", "or"})


def call(name: str, arguments: Sequence[object]) -> object:
    """Raises UnsupportedTemplate for arguments that the function does not accept."""
    try:
        return FUNCTIONS[name](*arguments)
    except TypeError:
        raise UnsupportedTemplate(f"{name} with {', '.join(map(type_name, arguments)) or 'no arguments'}") from None
