"""What pydantic finds wrong, as Problems for a person: the field's path, the value, what is allowed.

Nothing of pydantic's errors is seen beyond this module.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from corral_core.errors import NOTHING, Problem

Context = Mapping[str, Any]  # pydantic's own type of an error's context
_ALLOWED: Mapping[str, Callable[[Context], str]] = {
    "corral": lambda context: str(context["allowed"]),
    "missing": lambda _: "it is required",
    "int_type": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "finite_number": lambda _: "a finite number",
    "bool_type": lambda _: "true or false",
    "string_type": lambda _: "a text (numbers and true or false need quotes)",
    "list_type": lambda _: "a list",
    "tuple_type": lambda _: "a list",
    "dict_type": lambda _: "an object of keys and values",
    "model_type": lambda _: "an object of keys and values",
    "literal_error": lambda context: f"one of {context['expected']}",
    "greater_than_equal": lambda context: f"at least {context['ge']}",
    "less_than_equal": lambda context: f"at most {context['le']}",
    "less_than": lambda context: f"below {context['lt']}",
    "string_too_long": lambda context: f"at most {context['max_length']} characters",
    "string_too_short": lambda context: f"at least {context['min_length']} characters",
    "too_long": lambda context: f"at most {context['max_length']} items",
}


def problems_of(error: ValidationError, prefix: str, *, known: Callable[[str], Iterable[str]]) -> tuple[Problem, ...]:
    """One Problem for each error. ``known`` gives the field names that exist below a path, to suggest the nearest."""
    return tuple(_problem(details, prefix, known=known) for details in error.errors(include_url=False))


def suggestion(name: str, known: Iterable[str]) -> str:
    """`` (did you mean x?)`` for the nearest known name, empty when none is near."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f" (did you mean {by_lower[near[0]]}?)" if near else ""


def shortened(value: object, limit: int = 200) -> object:
    """The value itself, or the beginning of its text when that is longer than a line of a message should be."""
    text = value if isinstance(value, str) else repr(value)
    return value if len(text) <= limit else f"{text[:limit]}..."


def _problem(details: ErrorDetails, prefix: str, *, known: Callable[[str], Iterable[str]]) -> Problem:
    context: Context = details.get("ctx", {})
    path = _path(prefix, details["loc"])
    if details["type"] == "extra_forbidden":
        parent, _, name = path.rpartition(".")
        fields = sorted(known(parent))
        allowed = f"there is no such field{suggestion(name, fields)}; the fields of {parent} are {', '.join(fields)}"
        return Problem(path, shortened(details["input"]), allowed)
    if "field" in context:
        return Problem(f"{path}.{context['field']}", shortened(context["value"]), str(context["allowed"]))
    value = NOTHING if details["type"] == "missing" else shortened(details["input"])
    rule = _ALLOWED.get(details["type"])
    return Problem(path, value, rule(context) if rule else details["msg"])


def _path(prefix: str, location: tuple[int | str, ...]) -> str:
    """``spec.names[1]``; pydantic's mark for a bad key of a map is left out, as the key itself is in the path."""
    path = prefix
    for part in location:
        if part != "[key]":
            path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path
