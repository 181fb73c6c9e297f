"""What a source brings of a Modelfile as the packed text in model metadata."""

from __future__ import annotations

import base64
import dataclasses
import json
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_core.contracts.model_metadata import MAX_PACKED, ModelMetadata
from corral_core.contracts.packed_defaults import source_defaults, with_source_defaults
from corral_core.contracts.source_defaults import NO_DEFAULTS, SourceDefaults, SourceMessage
from tests.operator.samples import METADATA

BROUGHT = SourceDefaults(
    template="{{ .Prompt }} é",
    system="Be brief.",
    parameters={"temperature": 0.5, "stop": ["<end>"], "num_ctx": 8192},
    messages=(SourceMessage("user", "hi"), SourceMessage("assistant", "hello")),
    licenses=("MIT", "Apache-2.0"),
)


def noise(length: int) -> str:
    return "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=length))


def test_what_a_source_brings_round_trips_through_the_status() -> None:
    metadata = with_source_defaults(METADATA, BROUGHT)
    assert source_defaults(ModelMetadata.from_json(json.loads(json.dumps(metadata.to_json())))) == BROUGHT
    assert metadata.left_out == ()


def test_a_source_that_brings_weights_alone_adds_nothing() -> None:
    assert with_source_defaults(METADATA, NO_DEFAULTS) == METADATA
    assert source_defaults(METADATA) == source_defaults(None) == NO_DEFAULTS


def test_a_long_template_and_a_long_license_fit() -> None:
    template, terms = "{{ .Prompt }} {{ if .Tools }} " * 2000, "terms of use " * 5000
    long = dataclasses.replace(BROUGHT, template=template, licenses=(terms,))
    assert source_defaults(with_source_defaults(METADATA, long)) == long


def test_a_part_that_does_not_fit_is_left_out_and_named() -> None:
    metadata = with_source_defaults(METADATA, dataclasses.replace(BROUGHT, licenses=(noise(60_000),)))
    assert source_defaults(metadata) == dataclasses.replace(BROUGHT, licenses=())
    assert metadata.left_out == ("license",)
    assert len(metadata.source_defaults) <= MAX_PACKED


def test_an_earlier_part_has_precedence_over_a_later_one() -> None:
    both = dataclasses.replace(BROUGHT, template=noise(25_000), licenses=(noise(26_000)[::-1],))
    assert with_source_defaults(METADATA, both).left_out == ("license",)


def test_a_text_that_is_too_long_reads_as_none() -> None:
    found = ModelMetadata.from_json({**METADATA.to_json(), "sourceDefaults": "A" * (MAX_PACKED + 1)})
    assert found == METADATA


def test_a_decompression_bomb_brings_nothing() -> None:
    bomb = base64.b64encode(zlib.compress(b'{"system":"' + b" " * (16 << 20) + b'"}', 9)).decode()
    assert source_defaults(dataclasses.replace(METADATA, source_defaults=bomb)) == NO_DEFAULTS


@pytest.mark.parametrize("data", [b"[]", b'{"template": 1}', b"[" * 5000, b'{"system": "\\ud800"}'])
def test_other_json_brings_nothing(data: bytes) -> None:
    packed = base64.b64encode(zlib.compress(data)).decode()
    assert source_defaults(dataclasses.replace(METADATA, source_defaults=packed)) == NO_DEFAULTS


@given(st.text() | st.binary().map(lambda data: base64.b64encode(data).decode()))
@settings(deadline=None)
def test_whatever_a_status_has_is_read_without_an_error(text: str) -> None:
    assert source_defaults(dataclasses.replace(METADATA, source_defaults=text)) == NO_DEFAULTS
