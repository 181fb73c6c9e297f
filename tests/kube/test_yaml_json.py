"""JSON that is YAML too."""

from __future__ import annotations

import json

import yaml
from hypothesis import given
from hypothesis import strategies as st

from corral_kube.yaml_json import encode

CHARACTERS = st.characters(blacklist_categories=["Cs"]) | st.sampled_from('\\"ud83d\U0001f999\x00\x85\ufffe\u2028')
TEXTS = st.text(CHARACTERS)
KEYS = st.text(CHARACTERS, max_size=84)
"""A key of YAML has at most 1,024 characters (YAML 1.2, 7.4.2), and each of these takes up to 12 when it is escaped."""


@given(st.dictionaries(KEYS, TEXTS | st.lists(TEXTS)))
def test_readers_of_json_and_of_yaml_read_the_same(value: object) -> None:
    text = encode(value).decode()
    assert json.loads(text) == value
    assert yaml.safe_load(text) == value


def test_a_half_of_a_character_is_replaced() -> None:
    assert json.loads(encode(["a\ud83db", "\udc00"])) == ["a\ufffdb", "\ufffd"]
