"""Properties: any JSON body gets a response or an error in the format of the path, never an internal error."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from corral_server.runner.llama.vocabulary import SpecialTokens
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import METADATA, ServedRunner, serving

pytestmark = pytest.mark.slow

Body = dict[str, object]
PROPERTY = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


def or_anything(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return strategy | strategy | ANYTHING


MESSAGE = st.fixed_dictionaries(
    {},
    optional={
        "role": or_anything(st.sampled_from(["user", "assistant", "system", "Tool"])),
        "content": or_anything(st.text(max_size=20)),
        "images": ANYTHING,
        "tool_calls": or_anything(
            st.lists(
                st.fixed_dictionaries({"function": or_anything(st.just({"name": "f", "arguments": {}}))}), max_size=2
            )
        ),
        "tool_name": ANYTHING,
        "tool_call_id": or_anything(st.just("a")),
        "thinking": ANYTHING,
    },
)
FUNCTION = st.fixed_dictionaries(
    {"name": or_anything(st.sampled_from(["f", 'a "b"'])), "parameters": or_anything(st.just({"type": "object"}))},
    optional={"description": ANYTHING, "type": or_anything(st.just("function")), "input_schema": ANYTHING},
)
TOOLS = or_anything(st.lists(FUNCTION | st.fixed_dictionaries({"function": or_anything(FUNCTION)}), max_size=2))
CHOICE = or_anything(
    st.sampled_from(["auto", "none", "required", {"type": "function", "function": {"name": "f"}}, {"type": "any"}])
)
MESSAGES = or_anything(st.lists(MESSAGE, max_size=3))
OPTIONS = or_anything(
    st.dictionaries(st.sampled_from(["temperature", "top_k", "stop", "num_ctx", "seed", "num_keep"]), ANYTHING)
)
COMMON = {
    "model": or_anything(st.sampled_from(["tiny", "Tiny:latest", "a/b:c"])),
    "stream": or_anything(st.booleans()),
    "format": or_anything(st.sampled_from(["json", {"type": "object"}, ""])),
    "keep_alive": or_anything(st.sampled_from(["5m", 0, -1, "1.5h"])),
    "options": OPTIONS,
    "think": ANYTHING,
    "truncate": ANYTHING,
    "shift": ANYTHING,
    "logprobs": ANYTHING,
    "top_logprobs": ANYTHING,
    "tools": TOOLS,
    "_debug_render_only": or_anything(st.booleans()),
}
GENERATE = {
    "prompt": or_anything(st.text(max_size=20)),
    "system": ANYTHING,
    "template": or_anything(st.text(alphabet="{%}. abmesg", max_size=20)),
    "context": or_anything(st.lists(st.integers(-5, 300), max_size=4)),
    "raw": ANYTHING,
    "suffix": ANYTHING,
    "images": ANYTHING,
}
OPENAI = {
    "temperature": ANYTHING,
    "top_p": ANYTHING,
    "max_tokens": ANYTHING,
    "stop": ANYTHING,
    "seed": ANYTHING,
    "response_format": or_anything(st.just({"type": "json_schema", "json_schema": {"schema": {"type": "string"}}})),
    "stream_options": or_anything(st.just({"include_usage": True})),
    "reasoning_effort": ANYTHING,
    "reasoning": ANYTHING,
    "tool_choice": CHOICE,
}
_KINDS = [
    "text",
    "message",
    "thinking",
    "tool_use",
    "tool_result",
    "web_search_tool_result",
    "image",
    "input_text",
    "input_image",
    "reasoning",
    "function_call",
    "function_call_output",
]
BLOCK = st.fixed_dictionaries(
    {"type": or_anything(st.sampled_from(_KINDS))},
    optional={
        "text": or_anything(st.text(max_size=5)),
        "role": or_anything(st.sampled_from(["user", "assistant", "developer"])),
        "content": or_anything(st.text(max_size=5) | st.lists(st.just({"type": "text", "text": "x"}), max_size=2)),
        "input": or_anything(st.just({})),
        "arguments": or_anything(st.just("{}")),
        "output": ANYTHING,
        "summary": ANYTHING,
        "name": or_anything(st.just("f")),
        "id": ANYTHING,
        "call_id": ANYTHING,
        "source": or_anything(st.just({"type": "base64", "data": "x"})),
    },
)
BLOCKS = or_anything(st.lists(BLOCK, max_size=4))
RESPONSES = {
    "input": BLOCKS,
    "instructions": ANYTHING,
    "text": or_anything(st.just({"format": {"type": "json_schema", "schema": {"type": "string"}}})),
    "max_output_tokens": ANYTHING,
    "truncation": ANYTHING,
    "metadata": ANYTHING,
}
ANTHROPIC = {
    "max_tokens": or_anything(st.just(5)),
    "messages": or_anything(st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": BLOCKS}), max_size=2)),
    "system": BLOCKS,
    "stop_sequences": ANYTHING,
    "top_k": ANYTHING,
    "thinking": or_anything(st.just({"type": "enabled"})),
    "output_config": or_anything(st.just({"effort": "low"})),
}

LLAMA_SERVER = {
    "content": or_anything(st.text(max_size=5) | st.lists(st.text(max_size=3) | st.integers(0, 255), max_size=3)),
    "add_special": ANYTHING,
    "with_pieces": or_anything(st.booleans()),
    "tokens": or_anything(st.lists(st.integers(-1, 300), max_size=4)),
    "input_prefix": or_anything(st.text(max_size=5)),
    "input_suffix": or_anything(st.text(max_size=5)),
    "input_extra": or_anything(st.lists(st.fixed_dictionaries({"text": or_anything(st.just("x"))}), max_size=2)),
    "n_predict": or_anything(st.integers(-1, 3)),
    "stop": ANYTHING,
    "response_fields": or_anything(st.just(["content", "timings/prompt_n"])),
    "query": or_anything(st.text(max_size=5)),
    "documents": or_anything(st.lists(st.text(max_size=3) | st.just({"text": "x"}), max_size=3)),
    "texts": ANYTHING,
    "top_n": or_anything(st.integers(1, 3)),
    "return_documents": ANYTHING,
}


GOOD: Body = {
    "model": "tiny",
    "prompt": "hi",
    "messages": [{"role": "user", "content": "hi"}],
    "input": "hi",
    "max_tokens": 5,
    "content": "hi",
    "tokens": [104, 105],
    "input_prefix": "a",
    "input_suffix": "b",
    "query": "q",
    "documents": ["a", "b"],
}
FIM = SpecialTokens(fim_prefix=1, fim_suffix=2, fim_middle=3)
TEMPLATE = (
    "{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}[{{ m.role }}]{{ m.thinking }}{{ m.content }}"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}{% endfor %}."
)
SCRIPT = ("<think>hm", "</think>", "a", '<tool_call>{"name": "f", "arguments": {}}</tool_call>')


@st.composite
def spoilt(draw: st.DrawFn, fields: Mapping[str, st.SearchStrategy[object]]) -> Body:
    """A valid request with up to three fields replaced."""
    names = draw(st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True))
    return GOOD | {name: draw(fields[name]) for name in names}


@pytest.fixture(scope="module")
def runner() -> Iterator[ServedRunner]:
    metadata = replace(METADATA, capabilities=("completion", "tools", "thinking", "rerank"))
    with serving(FakeEngine(script=SCRIPT, special_tokens=FIM), template=TEMPLATE, metadata=metadata) as runner:
        yield runner


def check(runner: ServedRunner, path: str, body: object) -> None:
    response = runner.post(path, raw=json.dumps(body).encode())
    event(str(response.status_code))
    assert response.status_code in (200, 400, 404, 500), response.text
    if response.status_code != 200:
        error = response.json()["error"]
        text = error if path.startswith("/api/") else error["message"]
        assert isinstance(text, str)
        assert "internal error" not in text, text


@PROPERTY
@given(body=spoilt(COMMON | GENERATE))
def test_generate(runner: ServedRunner, body: Body) -> None:
    check(runner, "/api/generate", body)


@PROPERTY
@given(body=spoilt(COMMON | {"messages": MESSAGES}))
def test_chat(runner: ServedRunner, body: Body) -> None:
    check(runner, "/api/chat", body)


@PROPERTY
@given(body=spoilt(COMMON | OPENAI | {"messages": MESSAGES}))
def test_openai_chat(runner: ServedRunner, body: Body) -> None:
    check(runner, "/v1/chat/completions", body)


@PROPERTY
@given(body=spoilt(COMMON | OPENAI | RESPONSES))
def test_responses(runner: ServedRunner, body: Body) -> None:
    check(runner, "/v1/responses", body)


@PROPERTY
@given(body=spoilt(COMMON | OPENAI | ANTHROPIC))
def test_anthropic_messages(runner: ServedRunner, body: Body) -> None:
    check(runner, "/v1/messages", body)


@PROPERTY
@given(
    body=spoilt(COMMON | LLAMA_SERVER),
    path=st.sampled_from(["/tokenize", "/detokenize", "/infill", "/v1/rerank", "/v1/messages/count_tokens"]),
)
def test_llama_server(runner: ServedRunner, body: Body, path: str) -> None:
    check(runner, path, body)


@PROPERTY
@given(body=ANYTHING)
def test_show(runner: ServedRunner, body: object) -> None:
    check(runner, "/api/show", body)


@PROPERTY
@given(data=st.binary(max_size=40) | st.text(alphabet='{}[]":,\\u0dD8e+-.1ntf ', max_size=40).map(str.encode))
def test_bytes(runner: ServedRunner, data: bytes) -> None:
    response = runner.post("/api/chat", raw=data)
    assert response.status_code == 400
    assert response.json()["error"]
