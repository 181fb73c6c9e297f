"""Model metadata in a termination message."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import math
import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.contracts.model_metadata import ComputeBuffer, ModelDimensions, ModelMetadata
from corral_core.contracts.packed_defaults import source_defaults, with_source_defaults
from corral_core.contracts.termination_message import MAX_MESSAGE_BYTES, decode_metadata, encode_metadata
from tests.core.contracts.test_packed_defaults import BROUGHT

FACTS = ModelMetadata(
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
    dimensions=ModelDimensions(10**12, layers=32),
    source="pvc://claim/model.gguf",
    sha256="0" * 64,
)


def _noise(length: int, seed: int = 0) -> str:
    return "".join(random.Random(seed).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=length))


def test_metadata_round_trip() -> None:
    assert decode_metadata(encode_metadata(FACTS)) == FACTS
    assert decode_metadata(encode_metadata(FACTS) + "\n") == FACTS


def test_compute_buffers_are_kept_with_the_dimensions() -> None:
    buffers = tuple(ComputeBuffer(parallel, "q8_0", 131072, 2**40 + parallel) for parallel in range(16))
    facts = dataclasses.replace(FACTS, dimensions=ModelDimensions(10**12, layers=32, compute_buffers=buffers))
    large = dataclasses.replace(facts, template=_noise(20_000), info={str(n): _noise(500, n) for n in range(100)})
    assert decode_metadata(encode_metadata(facts)) == facts
    assert decode_metadata(encode_metadata(large)).dimensions == facts.dimensions


def test_template_that_does_not_fit_is_left_out() -> None:
    packed = encode_metadata(dataclasses.replace(FACTS, template=_noise(20_000)))
    assert len(packed) <= MAX_MESSAGE_BYTES
    assert decode_metadata(packed) == dataclasses.replace(FACTS, template="", left_out=("template",))


def test_info_that_does_not_fit_is_left_out() -> None:
    info: dict[str, object] = {f"key.{number}": _noise(500, number) for number in range(100)}
    packed = encode_metadata(dataclasses.replace(FACTS, template=_noise(20_000), info=info))
    assert len(packed) <= MAX_MESSAGE_BYTES
    assert decode_metadata(packed) == dataclasses.replace(
        FACTS, template="", info={}, left_out=("model_info", "template")
    )


def test_what_the_source_brings_is_sent_in_place_of_the_template_in_the_weights() -> None:
    found = decode_metadata(encode_metadata(with_source_defaults(FACTS, BROUGHT)))
    assert source_defaults(found) == BROUGHT
    assert (found.template, found.left_out) == ("", ())


def test_a_license_that_does_not_fit_is_left_out_and_named() -> None:
    brought = dataclasses.replace(BROUGHT, licenses=(_noise(20_000),))
    found = decode_metadata(encode_metadata(with_source_defaults(FACTS, brought)))
    assert source_defaults(found) == dataclasses.replace(BROUGHT, licenses=())
    assert found.left_out == ("license",)


def test_what_is_left_out_of_the_status_too_is_named_once() -> None:
    brought = dataclasses.replace(BROUGHT, system=_noise(20_000), licenses=(_noise(60_000),))
    assert decode_metadata(encode_metadata(with_source_defaults(FACTS, brought))).left_out == ("system", "license")


@pytest.mark.parametrize(
    "text", ["", "Killed", "corral-metadata:", "corral-metadata:!!!", "corral-metadata:abcdefgh", "{}"]
)
def test_other_message_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_metadata(text)


def packed(data: bytes) -> str:
    return "corral-metadata:" + base64.b85encode(zlib.compress(data, 9)).decode()


def changed(**fields: object) -> bytes:
    return json.dumps({**FACTS.to_json(), **fields}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"info":' * 100_000,
        b'{"info":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001,
        changed(size=10**400),
        changed(size=-1),
        changed(size=math.nan),
        changed(parameterCount=1e300),
        changed(contextLength=2**63),
        changed(families=["x"] * 1000),
        changed(families=[["x"]]),
        changed(shape={"weights": 10**400}),
        changed(family="\ud800"),
    ],
    ids=lambda data: repr(data[-24:]),
)
def test_metadata_beyond_the_bounds_is_rejected(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_metadata(packed(data))


def test_info_keeps_scalars_within_bounds_only() -> None:
    info: dict[str, object] = {"a": 1, "b": "text", "c": None, "d": True, "e": 0.5}
    hostile: dict[str, object] = {"f": [[1]], "g": {"h": {}}, "i": "x" * 2000, "k" * 300: 1, "l": 2**64 - 1}
    assert decode_metadata(packed(changed(info={**info, **hostile}))).info == info
    many = ModelMetadata.from_json({**FACTS.to_json(), "info": {str(number): 1 for number in range(9999)}})
    assert len(many.info) == 513


@given(
    st.text()
    | st.binary(max_size=200).map(packed)
    | st.binary(max_size=50).map(lambda data: f"corral-metadata:{data!r}")
)
def test_whatever_a_pod_leaves_is_metadata_or_a_value_error(message: str) -> None:
    with contextlib.suppress(ValueError):
        assert decode_metadata(message).to_json()


def test_decompression_bomb_is_rejected() -> None:
    bomb = base64.b85encode(zlib.compress(b" " * (64 << 20), 9))[: MAX_MESSAGE_BYTES * 20].decode()
    with pytest.raises(ValueError, match=r"."):
        decode_metadata("corral-metadata:" + bomb)
