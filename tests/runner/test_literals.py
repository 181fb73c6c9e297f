"""Any of many texts, as GBNF: what they have in common is written once."""

from __future__ import annotations

import pytest

from corral_server.runner.literals import one_of


@pytest.mark.parametrize(
    ("texts", "grammar"),
    [
        (["a"], '"a"'),
        (["a", "a"], '"a"'),
        (["b", "a"], '("a" | "b")'),
        (["ab", "a"], '"a" ("b")?'),
        (["value-1", "value-12", "value-2"], '"value-" ("1" ("2")? | "2")'),
        (["", "x"], '("x")?'),
    ],
)
def test_a_common_beginning_is_written_once(texts: list[str], grammar: str) -> None:
    assert one_of(texts) == grammar


def test_what_would_be_deeper_than_llama_cpp_reads_safely_is_a_list() -> None:
    written = one_of("a" * length for length in range(1, 2000))
    depth = most = 0
    for letter in written:
        depth += (letter == "(") - (letter == ")")
        most = max(most, depth)
    assert (depth, most) == (0, 33)
