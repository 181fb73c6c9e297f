"""The functions that templates may call: Go's own, as far as they make sense here, and those that Ollama adds.

``and`` and ``or`` are not here: they stop at the argument that decides, so the executor knows them.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from corral_server.runner.gotemplate.tokens import Unsupported
from corral_server.runner.gotemplate.values import is_true, kind, to_json, written

_VERB = re.compile(r"%(.)", re.DOTALL)


def _not(value: object) -> bool:
    return not is_true(value)


def _eq(first: object, *others: object) -> bool:
    """Whether the first is one of the others."""
    return any(_same(first, other) for other in others)


def _ne(left: object, right: object) -> bool:
    return not _same(left, right)


def _same(left: object, right: object) -> bool:
    """Only what is of one kind can be compared; nothing equals nil but nil."""
    if left is None or right is None:
        return left is right
    return _comparable(left, right) and left == right


def _comparable(left: object, right: object) -> bool:
    if type(left) is not type(right) or not isinstance(left, str | bool | int | float):
        raise Unsupported(f"a comparison of {kind(left)} with {kind(right)}")
    return True


def _ordered(compare: Callable[[object, object], object]) -> Callable[..., object]:
    def compared(left: object, right: object) -> bool:
        if isinstance(left, bool):
            raise Unsupported("a bool put in order")
        return _comparable(left, right) and bool(compare(left, right))

    return compared


def _len(value: object) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, Mapping | Sequence):
        return len(value)
    raise Unsupported(f"len of {kind(value)}")


def _index(value: object, *keys: object) -> object:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, Sequence) and not isinstance(value, str) and type(key) is int:
            if not 0 <= key < len(value):
                raise Unsupported(f"index {key} of a list of {len(value)}")
            value = value[key]
        else:
            raise Unsupported(f"index of {kind(value)}")
    return value


def _slice(value: object, *bounds: object) -> object:
    """Texts are cut by their bytes, as in Go."""
    if not isinstance(value, Sequence) or len(bounds) > 2:
        raise Unsupported(f"slice of {kind(value)}")
    data = value.encode() if isinstance(value, str) else value
    limits = [bound for bound in bounds if isinstance(bound, int)]
    start = limits[0] if limits else 0
    end = limits[1] if len(limits) == 2 else len(data)
    if len(limits) != len(bounds) or not 0 <= start <= end <= len(data):
        raise Unsupported(f"slice from {start} to {end} of {kind(value)} of {len(data)}")
    part = data[start:end]
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else part


def _print(*values: object) -> str:
    """A space between two values that are no texts."""
    text = ""
    for index, value in enumerate(values):
        if index and not isinstance(value, str) and not isinstance(values[index - 1], str):
            text += " "
        text += written(value)
    return text


def _println(*values: object) -> str:
    return " ".join(map(written, values)) + "\n"


def _printf(form: object, *values: object) -> str:
    if not isinstance(form, str):
        raise Unsupported(f"printf of {kind(form)}")
    rest = list(values)

    def verb(found: re.Match[str]) -> str:
        if found[1] == "%":
            return "%"
        if found[1] not in "svdq" or not rest:
            raise Unsupported(f'printf "%{found[1]}"')
        value = rest.pop(0)
        return to_json(written(value)) if found[1] == "q" else written(value)

    text = _VERB.sub(verb, form)
    if rest:
        raise Unsupported(f"printf with {len(values)} values for {form[:40]!r}")
    return text


def _current_date(*_: object) -> str:
    return datetime.now().astimezone().strftime("%Y-%m-%d")


def _yesterday_date(*_: object) -> str:
    return (datetime.now().astimezone() - timedelta(days=1)).strftime("%Y-%m-%d")


FUNCTIONS: Mapping[str, Callable[..., object]] = {
    "not": _not,
    "eq": _eq,
    "ne": _ne,
    "lt": _ordered(operator.lt),  # type: ignore[arg-type]  # it is only given what can be compared
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
    """Raises Unsupported for arguments that the function does not take."""
    try:
        return FUNCTIONS[name](*arguments)
    except TypeError:
        raise Unsupported(f"{name} with {', '.join(map(kind, arguments)) or 'no arguments'}") from None
