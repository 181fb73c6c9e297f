"""Conversion of pydantic's errors to Problems: the field's path, its value and what is allowed.

Pydantic's error types are not used outside of this module.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from corral_core.base.errors import MISSING, Problem

MAX_PROBLEMS = 50
"""Errors that are listed one by one."""

Context = Mapping[str, Any]  # the type of an error's context in pydantic
_ALLOWED: Mapping[str, Callable[[Context], str]] = {
    "corral": lambda context: str(context["allowed"]),
    "missing": lambda _: "it is required",
    "int_type": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "finite_number": lambda _: "a finite number",
    "bool_type": lambda _: "true or false",
    "string_type": lambda _: "a string (quote numbers and booleans)",
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


def problems_from(error: ValidationError, prefix: str, *, known: Callable[[str], Iterable[str]]) -> tuple[Problem, ...]:
    """Convert each error. ``known`` returns the fields that exist below a path, for suggestions."""
    found = error.errors(include_url=False)
    problems = tuple(_problem(details, prefix, known=known) for details in found[:MAX_PROBLEMS])
    rest = len(found) - len(problems)
    return (*problems, Problem(prefix, MISSING, f"{rest} more errors")) if rest else problems


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean x?)`` for the closest known name; empty if none is close."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)
    return f" (did you mean {by_lower[near[0]]}?)" if near else ""


def truncated(value: object, limit: int = 200) -> object:
    """Return the value, or the start of its text if that is longer than ``limit``."""
    text = value if isinstance(value, str) else repr(value)
    return value if len(text) <= limit else f"{text[:limit]}..."


def _problem(details: ErrorDetails, prefix: str, *, known: Callable[[str], Iterable[str]]) -> Problem:
    context: Context = details.get("ctx", {})
    path = _path(prefix, details["loc"])
    if details["type"] == "extra_forbidden":
        parent, _, name = path.rpartition(".")
        fields = sorted(known(parent))
        listed = f"{suggestion(name, fields)}; the fields of {parent} are {', '.join(fields)}" if fields else ""
        allowed = f"unknown field{listed}"
        return Problem(path, truncated(details["input"]), allowed)
    if "field" in context:
        return Problem(f"{path}.{context['field']}", truncated(context["value"]), str(context["allowed"]))
    value = MISSING if details["type"] == "missing" else truncated(context.get("shown", details["input"]))
    rule = _ALLOWED.get(details["type"])
    return Problem(path, value, rule(context) if rule else details["msg"])


def _path(prefix: str, location: tuple[int | str, ...]) -> str:
    """Format ``spec.names[1]``, without pydantic's marker of an invalid map key, which follows the key itself."""
    path = prefix
    for part in location:
        if part != "[key]":
            path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path
