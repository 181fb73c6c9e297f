"""Durations in Go's syntax and the forms of keep_alive, with the error texts of Go and Ollama.

A duration is a float of seconds; ``FOREVER`` is infinity. Sources: Go's ``time.ParseDuration`` and ``Duration.String``,
Ollama's ``api/types.go`` (``Duration.UnmarshalJSON``) and ``envconfig/config.go`` (``KeepAlive``).
"""

from __future__ import annotations

import math
import re

from corral_core.base.errors import InvalidDuration

FOREVER = math.inf

DEFAULT_KEEP_ALIVE = 300.0
"""Ollama's default, five minutes."""

_UNITS = {
    "ns": 1,
    "us": 10**3,
    "\u00b5s": 10**3,  # micro sign
    "\u03bcs": 10**3,  # Greek letter mu
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_MAX_NANOSECONDS = 2**63 - 1
"""The longest Go duration, in nanoseconds; a longer one is ``FOREVER``."""
_COMPONENT = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")
_GO_TYPES = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}


def parse_duration(text: str) -> float:
    """Parse to seconds, negative with a leading ``-``. Raises InvalidDuration with Go's text."""
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0.0
    if not rest:
        raise _invalid(text)
    nanoseconds, position = 0, 0
    while position < len(rest):
        value, position = _parse_component(text, rest, position=position)
        nanoseconds += value
        if nanoseconds > _MAX_NANOSECONDS + 1:
            raise _invalid(text)
    negative = text.startswith("-")
    if nanoseconds > _MAX_NANOSECONDS and not negative:
        raise _invalid(text)
    return (-nanoseconds if negative else nanoseconds) / 1e9


def keep_alive_from_json(value: object) -> float | None:
    """Parse the keep_alive of a request or a Model: seconds, FOREVER if negative, None if unset.

    Raises InvalidDuration with Ollama's texts.
    """
    if value is None:
        return None
    if isinstance(value, str):
        return _forever_if_negative(parse_duration(value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidDuration(f"Unsupported type: '{_GO_TYPES.get(type(value), type(value).__name__)}'")
    if isinstance(value, float) and math.isnan(value):
        raise InvalidDuration('time: invalid duration "NaN"')
    return FOREVER if value < 0 or value > _MAX_NANOSECONDS // 10**9 else float(value)


def parse_keep_alive_setting(text: str) -> float:
    """Parse ``OLLAMA_KEEP_ALIVE``: a duration or whole seconds, FOREVER if negative; five minutes if it is neither."""
    trimmed = text.strip().strip("\"'")
    try:
        return _forever_if_negative(parse_duration(trimmed))
    except InvalidDuration:
        pass
    if re.fullmatch(r"[+-]?[0-9]{1,18}", trimmed):
        return keep_alive_from_json(int(trimmed)) or 0.0
    return DEFAULT_KEEP_ALIVE


def format_duration(seconds: float) -> str:
    """Format as Go's ``Duration.String`` (``5m0s``, ``1.5s``, ``300ms``); ``forever`` for FOREVER."""
    if seconds == FOREVER:
        return "forever"
    if seconds < 0:
        return "-" + format_duration(-seconds)
    nanoseconds = round(seconds * 1e9)
    for unit, size in (("ns", 1), ("\u00b5s", 10**3), ("ms", 10**6)):
        if nanoseconds < 1000 * size:
            return f"{_format_decimal(nanoseconds, size)}{unit}" if nanoseconds else "0s"
    minutes, rest = divmod(nanoseconds, 60 * 10**9)
    hours, minutes = divmod(minutes, 60)
    text = f"{_format_decimal(rest, 10**9)}s"
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}" if minutes else text


def _parse_component(text: str, rest: str, *, position: int) -> tuple[int, int]:
    """Parse one ``number unit`` at ``position`` to nanoseconds and the position after it."""
    match = _COMPONENT.match(rest, position)
    assert match is not None, "the expression matches the empty string"
    whole, fraction, unit = match.groups()
    if not (whole or fraction) or len(whole) > 30 or int(whole or "0") > _MAX_NANOSECONDS + 1:
        raise _invalid(text)
    if not unit:
        raise InvalidDuration(f"time: missing unit in duration {_quote(text)}")
    if unit not in _UNITS:
        raise InvalidDuration(f"time: unknown unit {_quote(unit)} in duration {_quote(text)}")
    size = _UNITS[unit]
    digits = (fraction or "")[:18]
    return int(whole or "0") * size + int(digits or "0") * size // 10 ** len(digits), match.end()


def _forever_if_negative(seconds: float) -> float:
    return FOREVER if seconds < 0 else seconds


def _format_decimal(value: int, size: int) -> str:
    whole, rest = divmod(value, size)
    return f"{whole}.{str(rest).zfill(len(str(size)) - 1)}".rstrip("0").rstrip(".") if rest else str(whole)


def _invalid(text: str) -> InvalidDuration:
    return InvalidDuration(f"time: invalid duration {_quote(text)}")


def _quote(text: str) -> str:
    """Quote like Go's ``time.quote``: bytes outside printable ASCII become ``\\xNN`` of the UTF-8 encoding."""
    parts = []
    for character in text:
        if character in '"\\':
            parts.append("\\" + character)
        elif " " <= character < "\x7f":
            parts.append(character)
        else:
            parts.extend(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogatepass"))
    return '"' + "".join(parts) + '"'
