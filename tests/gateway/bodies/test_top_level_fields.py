"""Large bodies: their top-level fields equal those of a full parser, and other tasks run meanwhile."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corral_server.gateway.bodies import top_level_fields
from corral_server.gateway.bodies.json_body import MAX_VALUES, parse_body
from corral_server.gateway.bodies.top_level_fields import read_object
from corral_server.wire.errors import ApiError
from tests.support.fake_upstream import fake_upstream
from tests.support.gateway import MemoryDirectory, entry, running_gateway

DEPTH = 20
LARGE = "x" * 100_000


def read(body: bytes, *, depth_limit: int = DEPTH) -> Mapping[str, object]:
    return asyncio.run(read_object(body, kind="X", depth_limit=depth_limit, empty="missing"))


def refusal(body: bytes, *, depth_limit: int = DEPTH) -> str:
    with pytest.raises(ApiError) as caught:
        read(body, depth_limit=depth_limit)
    assert caught.value.status == 400
    return caught.value.message


def parsed(body: bytes) -> Mapping[str, object] | str:
    try:
        return parse_body(body, kind="X", depth_limit=DEPTH, empty="missing")
    except ApiError as error:
        return error.message


def skimmed(body: bytes, window: int) -> Mapping[str, object] | str:
    """As if it were large, looked at through a window that it hardly fits in."""
    with (
        mock.patch.object(top_level_fields, "SMALL", -1),
        mock.patch.object(top_level_fields, "_WHOLE", 10),
        mock.patch.object(top_level_fields, "_WINDOW", window),
        mock.patch.object(top_level_fields, "SLICE", 0),
    ):
        try:
            return read(body)
        except ApiError as error:
            return error.message


KEYS = st.sampled_from(["model", "MODEL", "prompt", "messages", 'a"b', "\\", "k\u00e9"]) | st.text(max_size=4)
VALUES = st.none() | st.recursive(  # null only at the top level: deeper values are not read
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    pairs=st.lists(st.tuples(KEYS, VALUES), max_size=6),
    window=st.integers(2, 40),
    indent=st.sampled_from([None, 0, 3]),
    after=st.sampled_from([b"", b"  ", b"{}", b"]"]),
)
def test_top_level_fields_equal_those_of_a_full_parser(
    pairs: list[tuple[str, object]], window: int, indent: int | None, after: bytes
) -> None:
    fields = [f"{json.dumps(key)}:{json.dumps(value, indent=indent)}" for key, value in pairs]
    body = ("{" + " ,".join(fields) + "}").encode() + after
    whole, found = parsed(body), skimmed(body, window)
    assert not isinstance(whole, str)
    assert not isinstance(found, str)
    assert found.keys() == whole.keys()
    for key, value in whole.items():
        assert type(found[key]) is type(value)
        assert bool(found[key]) is bool(value)
        if not isinstance(value, str | list | dict) or (key == "model" and isinstance(value, str)):
            assert found[key] == value


@settings(max_examples=300, deadline=None)
@given(
    body=st.text(alphabet='{}[]":,\\ model01eE.-tn\n', max_size=60).map(str.encode) | st.binary(max_size=40),
    window=st.integers(2, 40),
)
@example(body=b'{"a":1,}', window=9)
@example(body=b'{"a":null,}', window=9)
@example(body=b'{"a":"\\', window=9)
@example(body=b'{"a":"\\"', window=9)
@example(body=b'{"a":[\\]}', window=9)
def test_only_invalid_json_is_rejected(body: bytes, window: int) -> None:
    whole, found = parsed(body), skimmed(body, window)
    if isinstance(whole, str):
        assert found == whole or not isinstance(found, str), "what is wrong inside a value is the runner's to say"
    else:
        assert not isinstance(found, str)
        assert found.get("model") == whole.get("model")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"model":"a","x":' + b"[" * DEPTH + b'],"y":"' + LARGE.encode() + b'"}', "nested too deeply"),
        (b'{"model":"a","x":[' + b"[]," * (MAX_VALUES // 2) + b"1]}", "too many values"),
        (b'{"model":"a",' + b",".join(b'"k%d":1' % number for number in range(20_000)) + b"}", "too many fields"),
        (b'{"model":"a","x":"' + b"\\x" * 1_000_000, "invalid JSON"),
        (b"[" + b"1," * 1_000_000, "invalid JSON"),
        (b'{"model":"a","x":"' + b"y" * 100_000, "unexpected EOF"),
        (b"[" + b"1," * 40_000 + b"1]", "cannot unmarshal array"),
        (b" " * 100_000, "missing"),
    ],
)
def test_the_error_for_a_large_invalid_body(body: bytes, text: str) -> None:
    assert text in refusal(body)


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(b'"x":[' + b"[[]]," * 100_000 + b"1]", id="brackets"),
        pytest.param(b'"x":"' + b'\\"' * 5_000_000 + b'"', id="quotes"),
        pytest.param(b'"x":[' + b'"abcdefghijk",' * 500_000 + b"1]", id="strings"),
        pytest.param(b'"x":"' + b"y" * 60_000_000 + b'"', id="a text"),
    ],
)
def test_other_tasks_run_while_a_large_body_is_parsed(rest: bytes) -> None:
    async def scenario() -> int:
        reading = asyncio.create_task(
            read_object(b'{"model":"a",' + rest + b"}", kind="X", depth_limit=DEPTH, empty="missing")
        )
        turns = 0
        while not reading.done():
            await asyncio.sleep(0)
            turns += 1
        assert (await reading)["model"] == "a"
        return turns

    assert asyncio.run(scenario()) > 5


@pytest.mark.parametrize("size", [900_000, 2_000_000])
async def test_an_overlong_model_name_is_rejected(size: int) -> None:
    async with running_gateway(MemoryDirectory.of(entry("tiny"))) as gateway:
        answer = await gateway.http.post("/api/chat", json={"model": "y" * size})
        assert (answer.status_code, answer.json()) == (400, {"error": "invalid model name"})


async def test_a_long_text_that_is_returned_is_complete() -> None:
    async with running_gateway(MemoryDirectory.of(entry("tiny"))) as gateway:
        shown = await gateway.http.post("/api/show", json={"model": "tiny", "system": LARGE})
        assert shown.json()["system"] == LARGE


@pytest.mark.parametrize("path", ["/api/chat", "/v1/messages"])
async def test_large_bodies_are_forwarded_unchanged(path: str) -> None:
    body = b'{"messages":[{"role":"user","content":"' + LARGE.encode() + b'"}],"MODEL":"tiny" }'
    async with fake_upstream() as up, running_gateway(MemoryDirectory.of(entry("tiny", up.port))) as gateway:
        assert (await gateway.http.post(path, content=body)).status_code == 200
        unloads = b'{"model":"tiny","keep_alive":0,"x":"' + LARGE.encode() + b'"}'
        answer = await gateway.http.post("/api/generate", content=unloads)
        assert answer.json()["done_reason"] == "unload"
    assert [call.body for call in up.calls] == [body, unloads]
