"""Facts as a termination message."""

from __future__ import annotations

import base64
import dataclasses
import random
import zlib

import pytest

from corral_core.facts import ModelFacts
from corral_core.packed import LIMIT, pack, unpack
from corral_core.shape import Shape

FACTS = ModelFacts(
    size=10**12,
    family="llama",
    families=("llama",),
    parameter_size="1B",
    parameter_count=10**9,
    quantization_level="Q4_0",
    context_length=8192,
    embedding_length=2048,
    capabilities=("completion", "tools"),
    template="{% for message in messages %}{{ message.content }} é {% endfor %}",
    info={"general.architecture": "llama", "llama.rope.freq_base": 1e5, "tokenizer.ggml.tokens": None},
    shape=Shape(10**12, layers=32),
    source="pvc://claim/model.gguf",
    sha256="0" * 64,
)


def _noise(length: int, seed: int = 0) -> str:
    return "".join(random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=length))


def test_facts_come_back_whole() -> None:
    assert unpack(pack(FACTS)) == FACTS
    assert unpack(pack(FACTS) + "\n") == FACTS


def test_a_template_that_does_not_fit_is_left_out() -> None:
    packed = pack(dataclasses.replace(FACTS, template=_noise(20_000)))
    assert len(packed) <= LIMIT
    assert unpack(packed) == dataclasses.replace(FACTS, template="")


def test_keys_that_do_not_fit_are_left_out_too() -> None:
    info: dict[str, object] = {f"key.{number}": _noise(500, number) for number in range(100)}
    packed = pack(dataclasses.replace(FACTS, template=_noise(20_000), info=info))
    assert len(packed) <= LIMIT
    assert unpack(packed) == dataclasses.replace(FACTS, template="", info={})


@pytest.mark.parametrize("text", ["", "Killed", "corral-facts:", "corral-facts:!!!", "corral-facts:abcdefgh", "{}"])
def test_other_words_are_no_facts(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        unpack(text)


def test_a_message_that_unfolds_without_end_is_refused() -> None:
    bomb = base64.b85encode(zlib.compress(b" " * (64 << 20), 9))[: LIMIT * 20].decode()
    with pytest.raises(ValueError, match=r"."):
        unpack("corral-facts:" + bomb)
