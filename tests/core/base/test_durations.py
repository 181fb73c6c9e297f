"""Go durations and the forms of keep_alive, with the error texts of Go and Ollama."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.base.durations import (
    FOREVER,
    format_duration,
    keep_alive_from_json,
    parse_duration,
    parse_keep_alive_setting,
)
from corral_core.base.errors import InvalidDuration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("+0", 0.0),
        ("-0", 0.0),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("-1m", -60.0),
        ("+90s", 90.0),
        ("300ms", 0.3),
        ("1us", 1e-6),
        ("1\u00b5s", 1e-6),
        ("1\u03bcs", 1e-6),
        ("7ns", 7e-9),
        ("1s1s1h", 3602.0),
        ("9223372036s", 9223372036.0),
        ("0.9999999999999999999999s", 1.0),
    ],
)
def test_parse_go_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds, rel=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("abc", 'time: invalid duration "abc"'),
        ("10", 'time: missing unit in duration "10"'),
        ("-1", 'time: missing unit in duration "-1"'),
        ("1d", 'time: unknown unit "d" in duration "1d"'),
        ("1h 30m", 'time: unknown unit "h " in duration "1h 30m"'),
        ("5 m", 'time: unknown unit " m" in duration "5 m"'),
        (".s", 'time: invalid duration ".s"'),
        ("-", 'time: invalid duration "-"'),
        ("--1s", 'time: invalid duration "--1s"'),
        ("9223372037s", 'time: invalid duration "9223372037s"'),
        ("99999999999999999999h", 'time: invalid duration "99999999999999999999h"'),
        ('1"', 'time: unknown unit "\\"" in duration "1\\""'),
        ("1\u00e9", 'time: unknown unit "\\xc3\\xa9" in duration "1\\xc3\\xa9"'),
        ("\u0661s", 'time: invalid duration "\\xd9\\xa1s"'),
    ],
)
def test_parse_errors_match_go(text: str, message: str) -> None:
    with pytest.raises(InvalidDuration) as refusal:
        parse_duration(text)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        (300, 300.0),
        (0, 0.0),
        (0.5, 0.5),
        (-1, FOREVER),
        (-0.1, FOREVER),
        ("-1s", FOREVER),
        ("10m", 600.0),
        ("0", 0.0),
        ("-0", 0.0),
        (10**400, FOREVER),
        (math.inf, FOREVER),
    ],
)
def test_parse_keep_alive(value: object, seconds: float | None) -> None:
    assert keep_alive_from_json(value) == seconds


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("10", 'time: missing unit in duration "10"'),
        ("", 'time: invalid duration ""'),
        (True, "Unsupported type: 'bool'"),
        ([], "Unsupported type: '[]interface {}'"),
        ({}, "Unsupported type: 'map[string]interface {}'"),
        (math.nan, 'time: invalid duration "NaN"'),
    ],
)
def test_invalid_keep_alive(value: object, message: str) -> None:
    with pytest.raises(InvalidDuration) as refusal:
        keep_alive_from_json(value)
    assert str(refusal.value) == message


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("", 300.0),
        ("10m", 600.0),
        ("60", 60.0),
        ("0", 0.0),
        ("-1", FOREVER),
        ("-5m", FOREVER),
        ('"1h"', 3600.0),
        (" 90s ", 90.0),
        ("1d", 300.0),
        ("???", 300.0),
    ],
)
def test_parse_keep_alive_setting(text: str, seconds: float) -> None:
    assert parse_keep_alive_setting(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (300.0, "5m0s"),
        (90.0, "1m30s"),
        (3600.0, "1h0m0s"),
        (0.0, "0s"),
        (1.5, "1.5s"),
        (0.3, "300ms"),
        (1e-6, "1\u00b5s"),
        (4e-9, "4ns"),
        (-90.0, "-1m30s"),
        (FOREVER, "forever"),
    ],
)
def test_format_matches_go(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


@given(st.integers(-(2**52), 2**52))
def test_format_and_parse_round_trip(microseconds: int) -> None:
    seconds = microseconds / 1e6
    assert parse_duration(format_duration(seconds)) == pytest.approx(seconds, abs=1e-6)


@given(st.text(alphabet='0123456789.smhunµ+- "\\', max_size=20) | st.text())
def test_any_text_is_a_duration_or_invalid(text: str) -> None:
    try:
        assert math.isfinite(parse_duration(text))
    except InvalidDuration as error:
        assert str(error).startswith("time: ")  # noqa: PT017  # the text is what clients see, whatever was tried
