"""Whole characters and stop strings out of token bytes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_server.runner.sampling.text import TextAssembler


def run(data: bytes, sizes: Sequence[int], stop: Sequence[str] = ()) -> tuple[str, list[str], bool]:
    """Feeds ``data`` in chunks of the given sizes, over and over; what was shown, in all and in pieces."""
    text, pieces, at, turn = TextAssembler(stop), [], 0, 0
    while at < len(data) and not text.stopped:
        size = sizes[turn % len(sizes)]
        pieces.append(text.push(data[at : at + size]))
        at, turn = at + size, turn + 1
    pieces.append(text.flush())
    return "".join(pieces), pieces, text.stopped


def test_a_character_split_over_tokens_arrives_whole() -> None:
    shown, pieces, _ = run("a🙂b".encode(), [1])
    assert shown == "a🙂b"
    assert "�" not in "".join(pieces)


def test_an_incomplete_character_at_the_end_becomes_a_replacement_character() -> None:
    assert run("a🙂".encode()[:-1], [1])[0] == "a�"


def test_invalid_utf8_becomes_replacement_characters() -> None:
    assert run(b"a\xff\xfeb", [1])[0] == "a��b"


def test_a_stop_string_across_tokens_is_removed() -> None:
    shown, pieces, stopped = run(b"Hello STOP more", [1], ["STOP"])
    assert (shown, stopped) == ("Hello ", True)
    assert all("S" not in piece for piece in pieces)


def test_a_partial_stop_string_is_released() -> None:
    assert run(b"a STO and ST", [1], ["STOP"])[0] == "a STO and ST"


def test_the_earliest_stop_string_counts() -> None:
    assert run(b"one two three", [13], ["three", "two"])[0] == "one "


def test_the_stop_string_that_occurred_is_known() -> None:
    text = TextAssembler(["three", "two", "tw"])
    text.push(b"one ")
    assert text.stop_string == ""
    text.push(b"two three")
    assert text.stop_string == "tw"


def test_empty_stop_strings_are_ignored() -> None:
    assert run(b"text", [2], ["", ""]) == ("text", ["te", "xt", ""], False)


def test_nothing_is_held_back_without_stop_strings() -> None:
    assert run(b"abc", [1])[1] == ["a", "b", "c", ""]


@pytest.mark.parametrize("stop", ["a" * 5000, "a" * 4999 + "b"])
def test_a_stop_string_that_repeats_itself_is_found_in_time(stop: str) -> None:
    shown, _, stopped = run(b"a" * 6000, [3], [stop])
    assert (shown, stopped) == (("", True) if stop[-1] == "a" else ("a" * 6000, False))


@given(
    text=st.text(alphabet="ab🙂é", max_size=30),
    stop=st.lists(st.text(alphabet="ab🙂é", min_size=1, max_size=4), max_size=3),
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
)
def test_the_text_ends_before_the_first_stop_string(text: str, stop: list[str], sizes: list[int]) -> None:
    """However the bytes are cut; a stop string that a longer one overlaps may end the text later, never too late."""
    shown, _, stopped = run(text.encode(), sizes, stop)
    ends = [text.find(one) for one in stop if one in text]
    assert text.startswith(shown)
    assert stopped == bool(ends)
    assert not any(one in shown for one in stop)
    if ends:
        assert shown == text[: len(shown)]
        assert any(text.startswith(one, len(shown)) for one in stop)
    else:
        assert shown == text
