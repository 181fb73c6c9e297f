"""GGUF header parser: values, and bounded cost for any file."""

from __future__ import annotations

import os
import struct
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corral_core.base.errors import GGUFError
from corral_core.weights import gguf
from corral_core.weights.gguf import GGUFArray, GGUFHeader, read_header
from tests.support.gguf_files import (
    ARRAY,
    F32,
    I8,
    I64,
    LLAMA,
    STRING,
    TENSORS,
    U8,
    U32,
    U64,
    FakeTensor,
    TypedValue,
    Value,
)
from tests.support.gguf_files import encode_string as raw_text
from tests.support.gguf_files import gguf_bytes as made

VALID = made()
MEMORY = 24 << 20
"""Maximum memory for reading a small file, whatever it claims."""


@pytest.fixture
def read(tmp_path: Path) -> Callable[[bytes], GGUFHeader]:
    """Return a function that writes a file and reads its header."""

    def write_and_read(content: bytes) -> GGUFHeader:
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        return read_header(path)

    return write_and_read


def _head(tensors: int, values: int) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", 3, tensors, values)


def test_values_are_parsed_with_their_types(read: Callable[[bytes], GGUFHeader]) -> None:
    values: dict[str, Value] = {
        "u8": TypedValue(U8, 255),
        "i8": TypedValue(I8, -128),
        "i64": TypedValue(I64, -(2**63)),
        "u64": TypedValue(U64, 2**64 - 1),
        "f32": TypedValue(F32, 0.5),
        "yes": True,
        "text": "käse",
        "list": TypedValue(ARRAY, [1, 2, 3], item=U32),
        "texts": ["a", "b"],
    }
    header = read(made(values))
    assert dict(header.values) == {
        "u8": 255,
        "i8": -128,
        "i64": -(2**63),
        "u64": 2**64 - 1,
        "f32": 0.5,
        "yes": True,
        "text": "käse",
        "list": GGUFArray(3, (1, 2, 3)),
        "texts": GGUFArray(2, ("a", "b")),
    }


def test_tensors_are_parsed_with_shape_type_and_size(read: Callable[[bytes], GGUFHeader]) -> None:
    header = read(made(tensors=[FakeTensor("a", (64, 2), 2), FakeTensor("b", (3,), 0)]))
    assert [(t.name, t.shape, t.type, t.size, t.offset) for t in header.tensors] == [
        ("a", (64, 2), "Q4_0", 72, 0),
        ("b", (3,), "F32", 12, 96),
    ]
    assert (header.tensor_bytes, header.parameter_count) == (84, 131)


def test_tensor_data_starts_at_the_alignment(read: Callable[[bytes], GGUFHeader]) -> None:
    header = read(made({**LLAMA, "general.alignment": 256}, alignment=256))
    assert header.data_offset % 256 == 0


def test_version_2_is_supported(read: Callable[[bytes], GGUFHeader]) -> None:
    assert read(made(version=2)).version == 2


def test_file_without_tensors_is_supported(read: Callable[[bytes], GGUFHeader]) -> None:
    assert read(made(tensors=[])).tensors == ()


def test_long_array_is_skipped(read: Callable[[bytes], GGUFHeader]) -> None:
    tokens = [f"token {n}" for n in range(5000)]
    values: dict[str, Value] = {"tokens": tokens, "types": TypedValue(ARRAY, [1] * 5000, item=U32), "after": "x"}
    header = read(made(values))
    assert header.values["tokens"] == GGUFArray(5000, None)
    assert header.values["types"] == GGUFArray(5000, None)
    assert header.get_str("after") == "x"
    assert header.array_length("tokens") == 5000


def test_long_array_is_kept_on_request(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    tokens = [f"token {n}" for n in range(5000)]
    path.write_bytes(made({"tokens": tokens}))
    assert read_header(path, keep=["tokens"]).values["tokens"] == GGUFArray(5000, tuple(tokens))


def test_strings_longer_than_the_buffer_are_skipped_and_read(read: Callable[[bytes], GGUFHeader]) -> None:
    long = "x" * (3 << 20)
    header = read(made({"tokens": [long] * 2 + ["a"] * 2000, "template": long, "after": 1}))
    assert header.get_str("template") == long
    assert header.get_int("after") == 1


def test_missing_or_mistyped_value_reads_as_the_default(read: Callable[[bytes], GGUFHeader]) -> None:
    header = read(made({"n": 1, "t": "x", "b": True}))
    assert (header.get_int("t", 7), header.get_int("b", 7), header.get_str("n", "d"), header.array_length("t")) == (
        7,
        7,
        "d",
        0,
    )


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a GGUF file"),
        (b"GG", "not a GGUF file"),
        (b"PK\x03\x04" + bytes(100), "not a GGUF file"),
        (b"GGUF" + struct.pack("<I", 1) + bytes(16), "version 1"),
        (b"GGUF" + struct.pack(">I", 3) + bytes(16), "big-endian"),
        (b"GGUF", "the version needs 4 bytes"),
        (_head(2**63, 0), "the number of tensors"),
        (_head(0, 2**40), "the number of keys"),
        (_head(0, 1) + struct.pack("<Q", 2**62) + bytes(20), "a key claims"),
        (_head(0, 1) + raw_text("k") + struct.pack("<I", 99) + bytes(20), "unknown type 99"),
        (_head(0, 1) + raw_text("k") + struct.pack("<IQ", STRING, 2**50) + bytes(20), "claims"),
        (_head(0, 1) + raw_text("k") + struct.pack("<IIQ", ARRAY, U8, 2**60) + bytes(20), "elements"),
        (_head(0, 1) + raw_text("k") + struct.pack("<IIQ", ARRAY, STRING, 9) + bytes(20), "elements"),
        (_head(0, 1) + raw_text("k") + struct.pack("<IIQ", ARRAY, 77, 1) + bytes(20), "unknown type 77"),
        (_head(1, 0) + raw_text("t") + struct.pack("<I", 5) + bytes(100), "5 dimensions"),
        (_head(1, 0) + raw_text("t") + struct.pack("<IQIQ", 1, 32, 4, 0) + bytes(100), "unknown type 4"),
        (_head(1, 0) + raw_text("t") + struct.pack("<IQIQ", 1, 31, 2, 0) + bytes(100), "not a whole number of Q4_0"),
        (_head(1, 0) + raw_text("t") + struct.pack("<IQIQ", 1, 2**63, 0, 0) + bytes(100), "is truncated"),
        (_head(1, 0) + raw_text("t") + struct.pack("<IQIQ", 1, 1, 0, 2**64 - 1) + bytes(100), "is truncated"),
        (_head(1, 0) + raw_text("t" * 256) + bytes(100), "a tensor's name claims 256"),
        (made({"general.alignment": 0}), "power of two"),
        (made({"general.alignment": 3}), "power of two"),
        (made({"general.alignment": "x"}), "power of two"),
        (made(tensors=[FakeTensor("a", (1,)), FakeTensor("a", (1,))]), "two tensors have the same name"),
    ],
)
def test_invalid_file_is_rejected_with_the_reason(
    read: Callable[[bytes], GGUFHeader], content: bytes, words: str
) -> None:
    with pytest.raises(GGUFError, match=words):
        read(content)


def test_duplicate_key_is_rejected(read: Callable[[bytes], GGUFHeader]) -> None:
    one = raw_text("k") + struct.pack("<IB", U8, 1)
    with pytest.raises(GGUFError, match="the key 'k' is duplicated"):
        read(_head(0, 2) + one + one + bytes(64))


def test_truncated_file_error_has_both_sizes(read: Callable[[bytes], GGUFHeader]) -> None:
    with pytest.raises(GGUFError, match=f"truncated: its tensors need {len(VALID)} bytes and it has {len(VALID) - 32}"):
        read(VALID[:-32])


def test_nested_arrays_are_parsed_and_bounded(read: Callable[[bytes], GGUFHeader]) -> None:
    inner = TypedValue(ARRAY, [1, 2], item=U8)
    assert read(made({"k": TypedValue(ARRAY, [inner, inner], item=ARRAY)})).values["k"] == GGUFArray(
        2, (GGUFArray(2, (1, 2)),) * 2
    )
    deep = TypedValue(ARRAY, [TypedValue(ARRAY, [inner], item=ARRAY)], item=ARRAY)
    with pytest.raises(GGUFError, match="at depth 2"):
        read(made({"k": deep}))


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: None, os.mkfifo])
def test_special_file_is_rejected_without_blocking(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "model.gguf")
    with pytest.raises(GGUFError):
        read_header(tmp_path / "model.gguf")


def test_huge_array_of_empty_strings_is_rejected_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(_head(0, 1) + raw_text("k") + struct.pack("<IIQ", ARRAY, STRING, gguf.MAX_TEXTS + 1))
    os.truncate(path, 1 << 36)
    with pytest.raises(GGUFError, match="strings of all arrays"):
        read_header(path)


def test_total_of_kept_elements_is_bounded(
    read: Callable[[bytes], GGUFHeader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each array is short enough to be kept; together they exceed the limit, so later ones are skipped."""
    monkeypatch.setattr(gguf, "MAX_KEPT", 250)
    header = read(made({f"k{n}": TypedValue(ARRAY, [1] * 100, item=U8) for n in range(4)}))
    kept = [isinstance(value, GGUFArray) and value.items is not None for value in header.values.values()]
    assert kept == [True, True, False, False]


def test_total_of_kept_strings_is_bounded(read: Callable[[bytes], GGUFHeader], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf, "MAX_KEPT_TEXT", 1000)
    with pytest.raises(GGUFError, match="brings all strings to"):
        read(made({f"k{n}": "x" * 300 for n in range(4)}))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Damage a valid file: truncate it, replace bytes, or replace a number by an extreme one."""
    content = bytearray(VALID)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(content) - 8))
        number = draw(st.sampled_from([0, 1, 255, 2**16, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63, 2**64 - 1]))
        part = draw(st.sampled_from([struct.pack("<Q", number), struct.pack("<I", number & 0xFFFFFFFF)]))
        part = draw(st.just(part) | st.binary(min_size=1, max_size=8))
        content[at : at + len(part)] = part
    return bytes(content[: draw(st.just(len(content)) | st.integers(0, len(content)))])


def _costs_little(path: Path, content: bytes) -> None:
    """Read the file; it must yield a header or a GGUFError within the memory limit."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        with suppress(GGUFError):
            read_header(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY


@given(damaged())
@settings(max_examples=400, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_file_has_bounded_cost(tmp_path: Path, content: bytes) -> None:
    _costs_little(tmp_path / "model.gguf", content)


@given(st.binary(max_size=400), st.sampled_from([0, 1, 2, 2**16, 2**63]), st.sampled_from([0, 1, 3, 2**16, 2**63]))
@settings(max_examples=300, deadline=1000, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_noise_after_a_valid_start_has_bounded_cost(tmp_path: Path, noise: bytes, tensors: int, values: int) -> None:
    _costs_little(tmp_path / "model.gguf", _head(tensors, values) + noise)


@pytest.mark.parametrize("length", range(0, len(VALID), 7))
def test_file_truncated_anywhere_is_an_error(read: Callable[[bytes], GGUFHeader], length: int) -> None:
    with pytest.raises(GGUFError):
        read(VALID[:length])


NUMBERS = st.integers(0, 2**32 - 1).map(lambda n: TypedValue(U32, n)) | st.booleans() | st.text(max_size=20)


@given(
    st.dictionaries(st.text(min_size=1, max_size=20).filter(lambda key: key != "general.alignment"), NUMBERS),
    st.sets(st.integers(1, 9), max_size=5),
)
def test_header_round_trip(values: dict[str, TypedValue | bool | str], lengths: set[int]) -> None:
    tensors = [FakeTensor(f"t{n}", (n * 32, n), 8) for n in lengths]
    path = Path(f"/proc/self/fd/{(descriptor := os.memfd_create('gguf'))}")
    try:
        os.write(descriptor, made(values, tensors))
        header = read_header(path)
    finally:
        os.close(descriptor)
    assert header.values == {
        key: value.value if isinstance(value, TypedValue) else value for key, value in values.items()
    }
    assert [tensor.shape for tensor in header.tensors] == [tensor.shape for tensor in tensors]


def test_large_vocabulary_is_not_held_in_memory(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(made({**LLAMA, "tokenizer.ggml.tokens": [f"t{n}" for n in range(30_000)]}, TENSORS))
    tracemalloc.start()
    try:
        header = read_header(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert header.array_length("tokenizer.ggml.tokens") == 30_000
    assert peak < 8 << 20
