"""Typed readers of environment variables.

- Each process has one frozen config object, built once from the environment with these readers.
- The error for an invalid value names the variable, the value and what is allowed.
- Whitespace and quotes around a value are stripped and an empty value counts as unset, as in Ollama
  (``envconfig/config.go``, ``Var``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from corral_core.base.durations import FOREVER, parse_duration
from corral_core.base.errors import InvalidDuration, InvalidSetting

_TRUE = frozenset({"1", "t", "true", "yes", "on"})
_FALSE = frozenset({"0", "f", "false", "no", "off"})


def str_setting(environ: Mapping[str, str], name: str, *, default: str = "") -> str:
    """Return the stripped value, or the default if it is unset or empty."""
    return environ.get(name, "").strip().strip("\"'") or default


def int_setting(
    environ: Mapping[str, str], name: str, *, default: int, minimum: int | None = None, maximum: int | None = None
) -> int:
    """Parse an integer within the bounds. Raises InvalidSetting."""
    text = str_setting(environ, name)
    if not text:
        return default
    value = int(text) if re.fullmatch(r"[+-]?[0-9]{1,18}", text) else None
    if value is None or (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        raise InvalidSetting(f"{name}={text!r} is not allowed: it must be {_range(minimum, maximum)}")
    return value


def bool_setting(environ: Mapping[str, str], name: str, *, default: bool) -> bool:
    """Parse a boolean in the usual spellings. Raises InvalidSetting."""
    text = str_setting(environ, name).lower()
    if not text:
        return default
    if text not in _TRUE | _FALSE:
        raise InvalidSetting(f"{name}={text!r} is not allowed: it must be true or false (or 1 or 0)")
    return text in _TRUE


def duration_setting(environ: Mapping[str, str], name: str, *, default: float, minimum: float | None = 0.0) -> float:
    """Parse a Go duration (``90s``, ``1h30m``) or whole seconds to seconds. Raises InvalidSetting."""
    text = str_setting(environ, name)
    if not text:
        return default
    try:
        value = float(text) if re.fullmatch(r"[+-]?[0-9]{1,12}", text) else parse_duration(text)
    except InvalidDuration as error:
        raise InvalidSetting(f"{name}={text!r} is not allowed: {error}; write it like 90s, 5m or 1h30m") from error
    if minimum is not None and value < minimum:
        raise InvalidSetting(f"{name}={text!r} is not allowed: it must be at least {minimum:g} s")
    return value


def timeout_setting(environ: Mapping[str, str], name: str, *, default: float) -> float:
    """Parse a duration to seconds; 0 or less means no limit, which is returned as FOREVER. Raises InvalidSetting."""
    seconds = duration_setting(environ, name, default=default, minimum=None)
    return seconds if seconds > 0 else FOREVER


def list_setting(environ: Mapping[str, str], name: str, *, default: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Split at commas; items are stripped and empty ones dropped."""
    text = str_setting(environ, name)
    return tuple(item.strip() for item in text.split(",") if item.strip()) if text else default


def choice_setting(environ: Mapping[str, str], name: str, *, default: str, choices: tuple[str, ...]) -> str:
    """Parse one of ``choices`` in any letter case. Raises InvalidSetting."""
    text = str_setting(environ, name, default=default).lower()
    if text not in choices:
        raise InvalidSetting(f"{name}={text!r} is not allowed: it must be one of {', '.join(choices)}")
    return text


def _range(minimum: int | None, maximum: int | None) -> str:
    if minimum is not None and maximum is not None:
        return f"a whole number from {minimum} to {maximum}"
    if minimum is not None:
        return f"a whole number of at least {minimum}"
    return "a whole number" if maximum is None else f"a whole number of at most {maximum}"
