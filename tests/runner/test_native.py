"""/api/generate and /api/chat over a fake engine: shapes, metrics, refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from corral_server.runner.generation import EngineFailed
from tests.support.fake_engine import BOS, IMPOSSIBLE, FakeEngine
from tests.support.runner_server import FACTS, ServedRunner, runner_state, served, serving

RFC3339_NANOS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")
GENERATE, CHAT = "/api/generate", "/api/chat"
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(scope="module")
def shared_engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(scope="module")
def runner(shared_engine: FakeEngine) -> Iterator[ServedRunner]:
    with serving(shared_engine) as runner:
        yield runner


@pytest.fixture(autouse=True)
def engine(shared_engine: FakeEngine) -> FakeEngine:
    """As new; tests that need another runner serve it once more."""
    shared_engine.script = ("Hello", ", world")
    shared_engine.tasks.clear()
    return shared_engine


def test_generate_streams_a_line_for_each_piece_and_ends_with_metrics(runner: ServedRunner) -> None:
    response = runner.post(GENERATE, {"model": "Tiny:Latest", "prompt": "hi"})
    assert response.headers["content-type"] == "application/x-ndjson"
    first, second, last = (json.loads(line) for line in response.text.splitlines())
    assert (first["model"], first["response"], first["done"]) == ("Tiny:Latest", "Hello", False)
    assert list(second) == ["model", "created_at", "response", "done"]
    assert RFC3339_NANOS.fullmatch(last["created_at"])
    assert (last["response"], last["done"], last["done_reason"]) == ("", True, "stop")
    assert (last["prompt_eval_count"], last["prompt_eval_duration"]) == (len(last["context"]) - 2, 1000)
    assert (last["eval_count"], last["eval_duration"]) == (2, 2000)
    assert last["total_duration"] > last["load_duration"] > 0


def test_generate_without_stream_is_one_object(runner: ServedRunner) -> None:
    response = runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "stream": False})
    assert response.headers["content-type"] == "application/json; charset=utf-8"
    body = response.json()
    assert (body["response"], body["done"], body["done_reason"]) == ("Hello, world", True, "stop")


def test_chat_streams_messages(runner: ServedRunner) -> None:
    lines = [json.loads(line) for line in runner.post(CHAT, HELLO).text.splitlines()]
    assert lines[0]["message"] == {"role": "assistant", "content": "Hello"}
    assert lines[-1]["message"] == {"role": "assistant", "content": ""}
    assert lines[-1]["done_reason"] == "stop"
    assert "context" not in lines[-1]


def test_metrics_that_are_zero_are_omitted() -> None:
    with serving(FakeEngine(script=())) as runner:
        body = runner.post(CHAT, HELLO | {"stream": False}).json()
    assert "eval_count" not in body
    assert body["prompt_eval_duration"] == 1000


def test_the_time_a_gateway_held_the_request_is_part_of_load_duration(runner: ServedRunner) -> None:
    headers = {"corral-queued-ns": str(7 * 10**9)}
    body = runner.http.post(CHAT, json=HELLO | {"stream": False}, headers=headers).json()
    assert 7 * 10**9 < body["load_duration"] < body["total_duration"] < 17 * 10**9


def test_the_prompt_is_the_template_with_one_bos(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "system": "be brief"})
    assert engine.prompt_text() == "[system]be brief[user]hi[assistant]"
    assert engine.tasks[-1].prompt.count(BOS) == 1


def test_the_models_system_message_is_used_when_the_request_has_none(engine: FakeEngine) -> None:
    with serving(engine, spec={"system": "be kind"}) as runner:
        runner.post(CHAT, HELLO)
        assert engine.prompt_text() == "[system]be kind[user]hi[assistant]"
        runner.post(CHAT, {"model": "tiny", "messages": [{"role": "system", "content": "no"}]})
        assert engine.prompt_text() == "[system]no[assistant]"


def test_a_last_message_of_the_assistant_is_continued(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(CHAT, {"model": "tiny", "messages": [*HELLO["messages"], {"role": "Assistant", "content": "We"}]})
    assert engine.prompt_text() == "[user]hi[assistant]We"


def test_the_context_has_the_tokens_as_they_were_sampled(
    runner: ServedRunner, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "stop", "END")
    body = runner.post("/api/generate", {"model": "tiny", "prompt": "hi", "stream": False}).json()
    assert body["context"] == [*engine.tasks[-1].prompt, 0, 1]


def test_a_raw_prompt_is_taken_as_it_is_and_returns_no_context(runner: ServedRunner, engine: FakeEngine) -> None:
    body = runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "raw": True, "stream": False}).json()
    assert engine.prompt_text() == "hi"
    assert "context" not in body


@pytest.mark.parametrize("field", [{"template": "x"}, {"system": "x"}, {"context": [1]}])
def test_raw_allows_no_template_system_or_context(runner: ServedRunner, field: dict[str, object]) -> None:
    response = runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "raw": True} | field)
    assert response.status_code == 400
    assert response.json() == {"error": "raw mode does not support template, system, or context"}


def test_the_context_of_an_answer_goes_before_the_next_prompt(runner: ServedRunner, engine: FakeEngine) -> None:
    first = runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "stream": False}).json()
    runner.post(GENERATE, {"model": "tiny", "prompt": "more", "context": first["context"]})
    assert engine.tasks[-1].prompt[: len(first["context"])] == tuple(first["context"])
    assert engine.prompt_text().endswith("[user]more[assistant]")


def test_a_context_outside_the_vocabulary_is_refused(runner: ServedRunner) -> None:
    response = runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "context": [10**9]})
    assert response.status_code == 400
    assert "vocabulary" in response.json()["error"]


def test_a_template_of_the_request_replaces_the_models(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "template": "<{{ messages[-1].content }}>"})
    assert engine.prompt_text() == "<hi>"


def test_a_go_template_of_the_request_is_understood(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "system": "s", "template": "<{{ .System }}|{{ .Prompt }}>"})
    assert engine.prompt_text() == "<s|hi>"


def test_a_go_template_with_something_unknown_is_refused_by_name(runner: ServedRunner) -> None:
    response = runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "template": "{{ html .Prompt }}"})
    assert response.status_code == 400
    assert "{{ html }}" in response.json()["error"]


def test_what_goes_before_a_suffix(engine: FakeEngine) -> None:
    facts = replace(FACTS, capabilities=("completion", "insert"))
    source = "{{ if .Suffix }}<PRE>{{ .Prompt }}<SUF>{{ .Suffix }}<MID>{{ else }}{{ .Prompt }}{{ end }}"
    with serving(engine, facts=facts, template=source) as runner:
        runner.post(GENERATE, {"model": "tiny", "prompt": "a(", "suffix": ")"})
        assert engine.prompt_text() == "<PRE>a(<SUF>)<MID>"
        runner.post("/v1/completions", {"model": "tiny", "prompt": "a(", "suffix": ")"})
        assert engine.prompt_text() == "<PRE>a(<SUF>)<MID>"


def test_a_broken_template_of_the_model_fails_the_request_and_raw_still_works(engine: FakeEngine) -> None:
    with serving(engine, template="{% for %}") as runner:
        response = runner.post(CHAT, HELLO)
        assert response.status_code == 500
        assert "the chat template is broken at line 1" in response.json()["error"]
        assert runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "raw": True}).status_code == 200


def test_what_a_template_raises_is_the_clients_fault(engine: FakeEngine) -> None:
    with serving(engine, template="{{ raise_exception('roles must alternate') }}") as runner:
        response = runner.post(CHAT, HELLO)
    assert (response.status_code, response.json()) == (400, {"error": "roles must alternate"})


def test_options_reach_the_engine_over_the_models_parameters(engine: FakeEngine) -> None:
    with serving(engine, spec={"parameters": {"temperature": 0.2, "top_k": 7, "stop": ["A"]}}) as runner:
        runner.post(CHAT, HELLO | {"options": {"temperature": 0.5, "num_predict": 9, "num_keep": 2, "nonsense": 1}})
    task = engine.tasks[-1]
    assert (task.sampling.temperature, task.sampling.top_k, task.stop) == (0.5, 7, ("A",))
    assert (task.max_tokens, task.keep) == (9, 2)


def test_a_wrong_option_type_is_refused_and_the_next_request_works(runner: ServedRunner) -> None:
    response = runner.post(CHAT, HELLO | {"options": {"num_ctx": "big"}})
    assert (response.status_code, response.json()) == (500, {"error": 'option "num_ctx" must be of type integer'})
    assert runner.post(CHAT, HELLO).status_code == 200


def test_shift_and_truncate_reach_the_engine(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(CHAT, HELLO | {"shift": False})
    assert engine.tasks[-1].shift is False
    runner.post(CHAT, HELLO)
    assert engine.tasks[-1].shift is True


@pytest.mark.parametrize("field", [{"shift": False}, {"truncate": False}])
def test_a_prompt_beyond_the_context_is_refused_when_it_may_not_be_cut(field: dict[str, object]) -> None:
    long = {"model": "tiny", "messages": [{"role": "user", "content": "x" * 500}]}
    with serving(FakeEngine(context_length=64)) as runner:
        response = runner.post(CHAT, long | field)
        assert response.status_code == 400
        assert response.json()["error"].startswith("the prompt is longer than the context length currently available")
        assert runner.post(CHAT, HELLO).status_code == 200


@pytest.mark.parametrize("wanted", ["json", {"type": "object"}])
def test_format_becomes_a_grammar(runner: ServedRunner, engine: FakeEngine, wanted: object) -> None:
    assert runner.post(CHAT, HELLO | {"format": wanted}).status_code == 200
    grammar = engine.tasks[-1].grammar
    assert grammar is not None
    assert "root ::=" in grammar


@pytest.mark.parametrize("wanted", [None, ""])
def test_no_format_is_no_grammar(runner: ServedRunner, engine: FakeEngine, wanted: object) -> None:
    runner.post(CHAT, HELLO | {"format": wanted})
    assert engine.tasks[-1].grammar is None


def test_another_format_is_refused(runner: ServedRunner) -> None:
    response = runner.post(CHAT, HELLO | {"format": "xml"})
    text = r'invalid format: "\"xml\""; expected "json" or a valid JSON Schema object'
    assert (response.status_code, response.json()) == (500, {"error": text})


@pytest.mark.parametrize(
    "schema", [{"type": "nothing"}, {"$ref": "http://elsewhere/x"}, {"enum": []}, {"enum": [IMPOSSIBLE]}]
)
def test_an_impossible_schema_is_refused_and_the_next_request_works(runner: ServedRunner, schema: object) -> None:
    response = runner.post(CHAT, HELLO | {"format": schema})
    assert response.status_code == 400
    assert response.json()["error"]
    assert runner.post(CHAT, HELLO).status_code == 200


def test_an_empty_prompt_loads(runner: ServedRunner) -> None:
    response = runner.post(GENERATE, {"model": "tiny"})
    body = response.json()
    assert response.headers["content-type"].startswith("application/json")
    del body["created_at"]
    assert body == {"model": "tiny", "response": "", "done": True, "done_reason": "load"}


def test_empty_messages_load(runner: ServedRunner) -> None:
    body = runner.post(CHAT, {"model": "tiny", "messages": None}).json()
    del body["created_at"]
    message = {"role": "assistant", "content": ""}
    assert body == {"model": "tiny", "message": message, "done": True, "done_reason": "load"}


@pytest.mark.parametrize("path", [GENERATE, CHAT])
def test_an_empty_request_with_keep_alive_0_unloads(engine: FakeEngine, path: str) -> None:
    with serving(engine) as runner:
        assert runner.post(path, {"model": "tiny", "keep_alive": 0}).json()["done_reason"] == "unload"
        activity = runner.http.get("/activity").json()
    assert activity["keep_alive_s"] == 0
    assert activity["expires_at"] is not None


def test_an_unload_is_answered_while_the_model_loads() -> None:
    with served(runner_state()) as runner:
        assert runner.post(GENERATE, {"model": "tiny", "keep_alive": "0"}).json()["done_reason"] == "unload"
        assert runner.http.get("/activity").json()["keep_alive_s"] == 300


def test_a_failing_engine_is_a_500_before_the_first_byte(engine: FakeEngine) -> None:
    engine.script = (EngineFailed("decoding failed"),)
    with serving(engine) as runner:
        response = runner.post(CHAT, HELLO)
        assert (response.status_code, response.json()) == (500, {"error": "decoding failed"})
        engine.script = ("fine",)
        assert runner.post(CHAT, HELLO).status_code == 200


def test_an_error_after_the_first_byte_ends_the_stream_with_a_line(engine: FakeEngine) -> None:
    engine.script = ("Hello", EngineFailed("decoding failed"))
    with serving(engine) as runner:
        response = runner.post(CHAT, HELLO)
    assert response.status_code == 200
    last = json.loads(response.text.splitlines()[-1])
    assert last == {"error": "an error was encountered while running the model: decoding failed"}


def test_an_unexpected_error_tells_nothing_of_the_insides(engine: FakeEngine) -> None:
    engine.script = (RuntimeError("secret"),)
    with serving(engine) as runner:
        response = runner.post(CHAT, HELLO)
    assert (response.status_code, response.json()) == (500, {"error": "internal error: RuntimeError"})


def test_text_is_echoed_as_utf8(engine: FakeEngine) -> None:
    engine.script = ('grüß "Gott" \n\u2028😀',)
    with serving(engine) as runner:
        body = runner.post(CHAT, HELLO | {"stream": False}).json()
    assert body["message"]["content"] == 'grüß "Gott" \n\u2028😀'


def test_an_answer_that_repeats_one_token_goes_on(runner: ServedRunner, engine: FakeEngine) -> None:
    """Ollama ends such a stream without a last line."""
    engine.script = (" a",) * 40
    lines = [json.loads(line) for line in runner.post(CHAT, HELLO).text.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == " a" * 40
    assert lines[-1]["done_reason"] == "stop"
