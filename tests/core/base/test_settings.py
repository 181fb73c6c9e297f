"""Environment variables as typed values, and the errors for invalid ones."""

from __future__ import annotations

import pytest

from corral_core.base.errors import InvalidSetting
from corral_core.base.settings import (
    bool_setting,
    choice_setting,
    duration_setting,
    int_setting,
    list_setting,
    str_setting,
)


def test_unset_and_empty_mean_the_default() -> None:
    for environ in ({}, {"X": ""}, {"X": "  "}, {"X": '""'}):
        assert str_setting(environ, "X", default="a") == "a"
        assert int_setting(environ, "X", default=3) == 3
        assert bool_setting(environ, "X", default=True) is True
        assert duration_setting(environ, "X", default=1.5) == 1.5
        assert list_setting(environ, "X", default=("a",)) == ("a",)
        assert choice_setting(environ, "X", default="a", choices=("a", "b")) == "a"


def test_whitespace_and_quotes_are_stripped() -> None:
    assert str_setting({"X": " 'a b' "}, "X") == "a b"
    assert int_setting({"X": ' "5" '}, "X", default=0) == 5


@pytest.mark.parametrize("text", ["1", "t", "TRUE", "yes", "On"])
def test_true(text: str) -> None:
    assert bool_setting({"X": text}, "X", default=False) is True


@pytest.mark.parametrize("text", ["0", "f", "False", "no", "OFF"])
def test_false(text: str) -> None:
    assert bool_setting({"X": text}, "X", default=True) is False


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("60", 60.0), ("1h30m", 5400.0), ("0", 0.0)])
def test_durations(text: str, seconds: float) -> None:
    assert duration_setting({"X": text}, "X", default=1.0) == seconds


def test_lists() -> None:
    assert list_setting({"X": "a, b ,,c"}, "X") == ("a", "b", "c")


def test_error_names_the_variable_and_what_is_allowed() -> None:
    with pytest.raises(InvalidSetting, match="PORT='many' is not allowed: it must be a whole number from 1 to 9"):
        int_setting({"PORT": "many"}, "PORT", default=1, minimum=1, maximum=9)


@pytest.mark.parametrize("text", ["0", "10", "1.5", "1_0", "٣", "9" * 5000])
def test_numbers_out_of_bounds(text: str) -> None:
    with pytest.raises(InvalidSetting):
        int_setting({"X": text}, "X", default=1, minimum=1, maximum=9)


def test_single_bound() -> None:
    with pytest.raises(InvalidSetting, match="a whole number of at least 2"):
        int_setting({"X": "1"}, "X", default=3, minimum=2)
    with pytest.raises(InvalidSetting, match="a whole number of at most 2"):
        int_setting({"X": "3"}, "X", default=1, maximum=2)


@pytest.mark.parametrize("text", ["1d", "-1s", "soon"])
def test_invalid_durations(text: str) -> None:
    with pytest.raises(InvalidSetting, match="X="):
        duration_setting({"X": text}, "X", default=1.0)


def test_invalid_boolean_and_choice() -> None:
    with pytest.raises(InvalidSetting, match="true or false"):
        bool_setting({"X": "maybe"}, "X", default=True)
    with pytest.raises(InvalidSetting, match="one of f16, q8_0"):
        choice_setting({"X": "q4"}, "X", default="f16", choices=("f16", "q8_0"))
