from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_server.registries.challenges import Challenge, parse_challenges


def test_bearer_challenge() -> None:
    header = 'Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push"'
    assert parse_challenges(header) == (
        Challenge(
            "bearer",
            {
                "realm": "https://auth.example/token",
                "service": "registry.example",
                "scope": "repository:a/b:pull,push",
            },
        ),
    )


def test_several_challenges_in_one_header() -> None:
    found = parse_challenges('Basic realm="r, s", Bearer realm="https://x/t", service=plain, Negotiate')
    assert [challenge.scheme for challenge in found] == ["basic", "bearer", "negotiate"]
    assert found[0].parameters == {"realm": "r, s"}
    assert found[1].parameters == {"realm": "https://x/t", "service": "plain"}


def test_quoted_characters() -> None:
    assert parse_challenges(r'Basic realm="a \"b\" \\"')[0].parameters == {"realm": 'a "b" \\'}


@pytest.mark.parametrize("header", ["", " ", ",,,", '"', "=", "Bearer" + " a" * 8192, "é"])
def test_no_challenge(header: str) -> None:
    assert all(challenge.scheme.isascii() for challenge in parse_challenges(header))
    assert len(parse_challenges(header)) <= 8


@given(st.text(max_size=300))
def test_any_header_is_parsed(header: str) -> None:
    parse_challenges(header)


def test_long_header_is_parsed_in_linear_time() -> None:
    parse_challenges('Bearer realm="' + "\\" * 8000)
    parse_challenges("Bearer " + "a=" * 4000)
