"""Translations of headers that are damaged or hostile: an error with a text, or a result of bounded size."""

from __future__ import annotations

import io
import struct
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_core.base.errors import GGUFError
from corral_core.weights.gguf import GGUFArray, GGUFHeader, read_header_from
from corral_core.weights.ollama.markers import ollama_only
from corral_core.weights.ollama.translations import translate
from tests.support.gguf_files import FakeTensor, gguf_bytes
from tests.support.ollama_models import PAIRS

SIZE = 1 << 30
"""Claimed size of the files, whose tensors are missing."""
HEADERS = {name: gguf_bytes(*make().ollama, data=False) for name, make in PAIRS.items()}


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    content = bytearray(HEADERS[draw(st.sampled_from(sorted(HEADERS)))])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(24, len(content) - 8))
        number = draw(st.sampled_from([0, 1, 4, 8, 9, 255, 2**16, 2**31, 2**32 - 1, 2**32, 2**40, 2**63, 2**64 - 1]))
        part = draw(st.sampled_from([struct.pack("<Q", number), struct.pack("<I", number & 0xFFFFFFFF)]))
        content[at : at + len(part)] = part
    return bytes(content)


@given(_damaged())
@settings(max_examples=300, deadline=2000)
def test_damaged_header_is_an_error_or_has_a_bounded_result(content: bytes) -> None:
    target = io.BytesIO()
    with suppress(GGUFError):
        edits = translate(read_header_from(io.BytesIO(content), "model.gguf", size=SIZE))
        if edits is not None:
            edits.write(io.BytesIO(content), target, wrote=len)
    assert target.tell() <= len(content) + (1 << 16)


@pytest.mark.parametrize("name", sorted(HEADERS))
def test_translated_header_is_readable_and_is_not_translated_again(name: str) -> None:
    edits = translate(read_header_from(io.BytesIO(HEADERS[name]), "model.gguf", size=SIZE))
    assert edits is not None
    assert ollama_only(edits.header) is None
    target = io.BytesIO()
    with pytest.raises(GGUFError, match="the file ends inside the tensor"):
        edits.write(io.BytesIO(HEADERS[name]), target, wrote=len)
    written = read_header_from(io.BytesIO(target.getvalue()), "model.gguf", size=SIZE)
    assert _scalars(written) == _scalars(edits.header)
    assert written.values.keys() == edits.header.values.keys()
    assert [tensor.name for tensor in written.tensors] == [tensor.name for tensor in edits.header.tensors]
    assert translate(written) is None


def _scalars(header: GGUFHeader) -> dict[str, object]:
    return {key: value for key, value in header.values.items() if not isinstance(value, GGUFArray)}


def test_number_that_no_key_can_hold_is_an_error() -> None:
    tensor = FakeTensor("blk.0.ffn_gate_exps.weight", (1, 1 << 33, 1))
    content = gguf_bytes({"general.architecture": "gptoss"}, [tensor], data=False)
    with pytest.raises(GGUFError, match="out of range"):
        translate(read_header_from(io.BytesIO(content), "model.gguf", size=1 << 40))
