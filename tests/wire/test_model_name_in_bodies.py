"""Gateway and runner read the same model from every body: what the gateway checks is what the runner serves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from corral_server.gateway.bodies.json_body import field
from corral_server.gateway.bodies.json_body import parse_body as parse_in_gateway
from corral_server.gateway.bodies.top_level_fields import SMALL, read_object
from corral_server.runner.api.request_body import parse_body as parse_in_runner
from corral_server.wire.errors import ApiError
from tests.gateway.test_keys import ALICE, bearer, key_file
from tests.support.fake_engine import FakeEngine
from tests.support.gateway import MemoryDirectory, entry, running_gateway
from tests.support.runner_server import serving

Pairs = list[tuple[str, object]]

LONG_S, KELVIN = "\u017f", "\u212a"
KEYS = st.sampled_from(["model", "MODEL", "Model", "mOdel", "\\u006dodel", "mode\\u013a", "keep_alive", "other", ""])
VALUES: st.SearchStrategy[object] = st.sampled_from([None, "base", "secret-lora", "", 1, True, [], {}, {"model": "x"}])
OBJECTS = st.lists(st.tuples(KEYS, VALUES), max_size=8)
CASES = st.sampled_from(["model", "stream", "keep_alive"])


def encode(pairs: Pairs) -> bytes:
    """Encode an object that may have equal keys; keys are inserted as they are, so they may hold escapes."""
    return ("{" + ",".join(f'"{key}":{json.dumps(value)}' for key, value in pairs) + "}").encode()


def in_gateway(body: bytes) -> str:
    try:
        if len(body) > SMALL:
            data: Mapping[str, object] = asyncio.run(read_object(body, kind="X", depth_limit=64, empty="missing"))
        else:
            data = parse_in_gateway(body, kind="X", depth_limit=64, empty="missing")
        return field(data, "model", kind="X")
    except ApiError as error:
        return error.message


def in_runner(body: bytes) -> str:
    try:
        return parse_in_runner(body, "X").string("model")
    except ApiError as error:
        return error.message


@settings(max_examples=300, deadline=None)
@given(OBJECTS)
@example([("model", "base"), ("MODEL", "secret-lora"), ("model", "base")])
@example([("model", "secret-lora"), ("model", None)])
@example([("MODEL", None), ("model", "base"), ("MODEL", "secret-lora"), ("model", None)])
def test_gateway_and_runner_read_the_same_model(pairs: Pairs) -> None:
    small = encode(pairs)
    large = encode([*pairs, ("pad", "x" * SMALL)])
    assert in_gateway(small) == in_runner(small)
    assert in_gateway(large) == in_runner(large) == in_runner(small)


@settings(max_examples=100, deadline=None)
@given(CASES, st.lists(st.sampled_from(["upper", "lower", "fold"]), min_size=10, max_size=10))
def test_keys_are_equal_by_gos_folding(name: str, cases: list[str]) -> None:
    changed = "".join(
        character.upper() if case == "upper" else {"s": LONG_S, "k": KELVIN}.get(character, character)
        for character, case in zip(name, cases, strict=False)
    )
    body = encode([(name, "first"), (changed, "last")])
    fields = parse_in_gateway(body, kind="X", depth_limit=64, empty="")
    assert fields[name] == parse_in_runner(body, "X").value(name) == "last"


def test_keys_of_nested_objects_keep_their_case() -> None:
    fields = parse_in_runner(b'{"options":{"A":1,"a":2},"options":null}', "X")
    assert fields.mapping("options") == {"A": 1, "a": 2}


@pytest.mark.parametrize(
    ("body", "adapter"),
    [
        (b'{"model":"base"}', ""),
        (b'{"model":"secret-lora","model":"base"}', ""),
        (b'{"model":"base","MODEL":"secret-lora"}', None),
        (b'{"model":"base","MODEL":"secret-lora","model":"base"}', ""),
        (b'{"model":"base","MODEL":"secret-lora","model":null}', None),
        (b'{"model":"SECRET-LORA:latest","model":null}', None),
        (b'{"MODEL":"secret-lora","model":"base","pad":"' + b"x" * SMALL + b'"}', ""),
        (b'{"model":"base","MODEL":"secret-lora","model":"base","pad":"' + b"x" * SMALL + b'"}', ""),
    ],
)
async def test_a_key_does_not_reach_an_adapter_that_it_does_not_allow(
    tmp_path: Path, body: bytes, adapter: str | None
) -> None:
    """``adapter``: the one that the runner serves, None if the gateway rejects the request."""
    engine = FakeEngine()
    lora = {"name": "secret-lora", "source": "file:///weights/lora.gguf"}
    keys = key_file(tmp_path, alice={"models": ["base"]})
    with serving(engine, spec={"adapters": [lora]}) as runner:
        model = entry("base", runner.port, names=("base:latest", "secret-lora:latest"))
        async with running_gateway(MemoryDirectory.of(model), keys_file=keys) as gateway:
            content = body[:-1] + b',"prompt":"hi","stream":false}'
            answer = await gateway.http.post("/api/generate", content=content, headers=bearer(ALICE))
    assert answer.status_code == (403 if adapter is None else 200), answer.text
    assert [task.adapter for task in engine.tasks] == ([] if adapter is None else [adapter])


@pytest.mark.parametrize(("name", "adapter"), [("base", ""), ("Tuned:latest", "tuned:latest")])
async def test_the_name_that_the_gateway_checked_selects_the_adapter(name: str, adapter: str) -> None:
    engine = FakeEngine()
    lora = {"name": "tuned", "source": "file:///weights/lora.gguf"}
    with serving(engine, spec={"adapters": [lora]}) as runner:
        model = entry("base", runner.port, names=("base:latest", "tuned:latest"))
        async with running_gateway(MemoryDirectory.of(model)) as gateway:
            answer = await gateway.http.post("/api/generate", json={"model": name, "prompt": "hi", "stream": False})
        assert answer.json()["model"] == name
        direct = {"model": name, "prompt": "hi", "stream": False}
        other = {"base": "tuned:latest", "Tuned:latest": "base:latest"}[name]
        runner.http.post("/api/generate", json=direct, headers={"corral-model-name": other})
    assert [task.adapter for task in engine.tasks] == [adapter, "" if adapter else "tuned:latest"]
