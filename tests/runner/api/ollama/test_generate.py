"""/api/generate and /api/chat with a fake engine: responses, metrics, options, errors."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from corral_server.runner.llama.errors import EngineFailed
from corral_server.runner.templates import client_template
from tests.support.fake_engine import BOS, FakeEngine
from tests.support.runner_server import METADATA, ServedRunner, runner_state, serving, serving_state
from tests.support.waiting import until

RFC3339_NANOS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")
GENERATE, CHAT = "/api/generate", "/api/chat"
HELLO = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


def test_generate_streams_one_line_per_chunk_and_ends_with_metrics(runner: ServedRunner) -> None:
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


def test_load_duration_includes_the_time_in_the_gateway_queue(runner: ServedRunner) -> None:
    headers = {"corral-queued-ns": str(7 * 10**9)}
    body = runner.http.post(CHAT, json=HELLO | {"stream": False}, headers=headers).json()
    assert 7 * 10**9 < body["load_duration"] < body["total_duration"] < 17 * 10**9


def test_the_prompt_is_the_rendered_template_with_one_bos(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "system": "be brief"})
    assert engine.prompt_text() == "[system]be brief[user]hi[assistant]"
    assert engine.tasks[-1].prompt.count(BOS) == 1


def test_the_models_system_message_is_used_when_the_request_has_none(engine: FakeEngine) -> None:
    with serving(engine, spec={"system": "be kind"}) as runner:
        runner.post(CHAT, HELLO)
        assert engine.prompt_text() == "[system]be kind[user]hi[assistant]"
        runner.post(CHAT, {"model": "tiny", "messages": [{"role": "system", "content": "no"}]})
        assert engine.prompt_text() == "[system]no[assistant]"


def test_a_final_assistant_message_is_continued(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(CHAT, {"model": "tiny", "messages": [*HELLO["messages"], {"role": "Assistant", "content": "We"}]})
    assert engine.prompt_text() == "[user]hi[assistant]We"


def test_context_has_the_sampled_tokens(
    runner: ServedRunner, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "stop", "END")
    body = runner.post("/api/generate", {"model": "tiny", "prompt": "hi", "stream": False}).json()
    assert body["context"] == [*engine.tasks[-1].prompt, 0, 1]


def test_a_raw_prompt_is_not_rendered_and_returns_no_context(runner: ServedRunner, engine: FakeEngine) -> None:
    body = runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "raw": True, "stream": False}).json()
    assert engine.prompt_text() == "hi"
    assert "context" not in body


@pytest.mark.parametrize("field", [{"template": "x"}, {"system": "x"}, {"context": [1]}])
def test_raw_excludes_template_system_and_context(runner: ServedRunner, field: dict[str, object]) -> None:
    response = runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "raw": True} | field)
    assert response.status_code == 400
    assert response.json() == {"error": "raw mode does not support template, system, or context"}


def test_context_is_prepended_to_the_next_prompt(runner: ServedRunner, engine: FakeEngine) -> None:
    first = runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "stream": False}).json()
    runner.post(GENERATE, {"model": "tiny", "prompt": "more", "context": first["context"]})
    assert engine.tasks[-1].prompt[: len(first["context"])] == tuple(first["context"])
    assert engine.prompt_text().endswith("[user]more[assistant]")


def test_a_context_outside_the_vocabulary_is_refused(runner: ServedRunner) -> None:
    response = runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "context": [10**9]})
    assert response.status_code == 400
    assert "vocabulary" in response.json()["error"]


def test_the_template_of_a_request_replaces_that_of_the_model(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "template": "<{{ messages[-1].content }}>"})
    assert engine.prompt_text() == "<hi>"


def test_a_request_may_have_a_go_template(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "system": "s", "template": "<{{ .System }}|{{ .Prompt }}>"})
    assert engine.prompt_text() == "<s|hi>"


def test_a_template_over_a_limit_is_an_error_that_names_the_limit(runner: ServedRunner) -> None:
    response = runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "template": "{{a}}" * 9000})
    assert response.status_code == 400
    assert response.json() == {"error": "the chat template has more than 8000 words within its tags"}


def test_an_installation_can_refuse_templates_of_requests(engine: FakeEngine) -> None:
    state = runner_state(engine)
    state.set_loaded(replace(state.require_loaded(), accepts_templates=False))
    with serving_state(state) as runner:
        refused = runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "template": "{{ .Prompt }}"})
        assert refused.status_code == 403
        assert "CORRAL_CLIENT_TEMPLATES=0" in refused.json()["error"]
        assert runner.post(GENERATE, {"model": "tiny", "prompt": "hi"}).status_code == 200


def test_other_requests_are_served_while_templates_of_requests_are_rendered(
    runner: ServedRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are more of them than ``asyncio.to_thread`` has threads on a machine of two cores."""
    monkeypatch.setattr(client_template, "CPU_SECONDS", 0.3)
    slow = {"model": "tiny", "prompt": "hi", "template": "{% for a in range(9999) %}{{ messages }}{% endfor %}" * 50}
    with ThreadPoolExecutor(7) as threads:
        templates = [threads.submit(runner.http.post, GENERATE, json=slow, timeout=300) for _ in range(7)]
        until(lambda: runner.active() == 7, what="the start of all requests")
        assert runner.post(GENERATE, {"model": "tiny", "prompt": "hi"}).status_code == 200
        assert not all(request.done() for request in templates)
        assert {request.result().status_code for request in templates} == {400}


def test_an_unknown_go_template_construct_is_named(runner: ServedRunner) -> None:
    response = runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "template": "{{ html .Prompt }}"})
    assert response.status_code == 400
    assert "{{ html }}" in response.json()["error"]


def test_suffix_is_rendered_by_the_template(engine: FakeEngine) -> None:
    metadata = replace(METADATA, capabilities=("completion", "insert"))
    source = "{{ if .Suffix }}<PRE>{{ .Prompt }}<SUF>{{ .Suffix }}<MID>{{ else }}{{ .Prompt }}{{ end }}"
    with serving(engine, metadata=metadata, template=source) as runner:
        runner.post(GENERATE, {"model": "tiny", "prompt": "a(", "suffix": ")"})
        assert engine.prompt_text() == "<PRE>a(<SUF>)<MID>"
        runner.post("/v1/completions", {"model": "tiny", "prompt": "a(", "suffix": ")"})
        assert engine.prompt_text() == "<PRE>a(<SUF>)<MID>"


def test_a_broken_model_template_fails_requests_except_raw_ones(engine: FakeEngine) -> None:
    with serving(engine, template="{% for %}") as runner:
        response = runner.post(CHAT, HELLO)
        assert response.status_code == 500
        assert "the chat template is invalid at line 1" in response.json()["error"]
        assert runner.post(GENERATE, {"model": "tiny", "prompt": "hi", "raw": True}).status_code == 200


def test_an_exception_raised_by_a_template_is_a_client_error(engine: FakeEngine) -> None:
    with serving(engine, template="{{ raise_exception('roles must alternate') }}") as runner:
        response = runner.post(CHAT, HELLO)
    assert (response.status_code, response.json()) == (400, {"error": "roles must alternate"})


def test_request_options_override_the_models_parameters(engine: FakeEngine) -> None:
    with serving(engine, spec={"parameters": {"temperature": 0.2, "top_k": 7, "stop": ["A"]}}) as runner:
        runner.post(CHAT, HELLO | {"options": {"temperature": 0.5, "num_predict": 9, "num_keep": 2, "nonsense": 1}})
    task = engine.tasks[-1]
    assert (task.sampling.temperature, task.sampling.top_k, task.stop) == (0.5, 7, ("A",))
    assert (task.max_tokens, task.keep) == (9, 2)


def test_a_wrong_option_type_is_refused_and_the_next_request_works(runner: ServedRunner) -> None:
    response = runner.post(CHAT, HELLO | {"options": {"num_ctx": "big"}})
    assert (response.status_code, response.json()) == (500, {"error": 'option "num_ctx" must be of type integer'})
    assert runner.post(CHAT, HELLO).status_code == 200


def test_a_smaller_num_ctx_limits_the_request(engine: FakeEngine) -> None:
    long = {"model": "tiny", "messages": [{"role": "user", "content": "x" * 300}] * 3}
    with serving(engine) as runner:
        response = runner.post(CHAT, long | {"options": {"num_ctx": 400}})
    assert engine.tasks[-1].context_length == 400
    assert engine.prompt_text().count("[user]") == 1
    assert "corral-context-length" not in response.headers


@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, HELLO), (CHAT, HELLO | {"stream": False}), (CHAT, {"model": "tiny"}), (GENERATE, {"model": "tiny"})],
)
def test_a_header_says_that_the_context_is_shorter_than_num_ctx(
    runner: ServedRunner, path: str, body: dict[str, object]
) -> None:
    response = runner.post(path, body | {"options": {"num_ctx": 8192}})
    assert response.headers["corral-context-length"] == "4096"


def test_shift_and_truncate_reach_the_engine(runner: ServedRunner, engine: FakeEngine) -> None:
    runner.post(CHAT, HELLO | {"shift": False})
    assert engine.tasks[-1].context_shift is False
    runner.post(CHAT, HELLO)
    assert engine.tasks[-1].context_shift is True


@pytest.mark.parametrize("field", [{"shift": False}, {"truncate": False}])
def test_a_prompt_longer_than_the_context_is_refused_without_shift_or_truncate(field: dict[str, object]) -> None:
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
    assert "%json" in grammar.rules


@pytest.mark.parametrize("wanted", [None, ""])
def test_without_format_there_is_no_grammar(runner: ServedRunner, engine: FakeEngine, wanted: object) -> None:
    runner.post(CHAT, HELLO | {"format": wanted})
    assert engine.tasks[-1].grammar is None


def test_an_unknown_format_is_refused(runner: ServedRunner) -> None:
    response = runner.post(CHAT, HELLO | {"format": "xml"})
    text = r'invalid format: "\"xml\""; expected "json" or a valid JSON Schema object'
    assert (response.status_code, response.json()) == (500, {"error": text})


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "nothing"}, "Invalid type: nothing"),
        ({"$ref": "http://elsewhere/x"}, "http://elsewhere/x"),
        ({"enum": []}, "empty"),
        ({"not": {"type": "null"}}, "not"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "string", "pattern": "(?=a)b"}, "pattern"),
    ],
)
def test_an_unsupported_schema_is_refused_by_its_keyword_and_the_next_request_works(
    runner: ServedRunner, schema: object, named: str
) -> None:
    response = runner.post(CHAT, HELLO | {"format": schema})
    assert response.status_code == 400
    assert named in response.json()["error"]
    assert runner.post(CHAT, HELLO).status_code == 200


def test_an_empty_prompt_loads_the_model(runner: ServedRunner) -> None:
    response = runner.post(GENERATE, {"model": "tiny"})
    body = response.json()
    assert response.headers["content-type"].startswith("application/json")
    del body["created_at"]
    assert body == {"model": "tiny", "response": "", "done": True, "done_reason": "load"}


def test_empty_messages_load_the_model(runner: ServedRunner) -> None:
    body = runner.post(CHAT, {"model": "tiny", "messages": None}).json()
    del body["created_at"]
    message = {"role": "assistant", "content": ""}
    assert body == {"model": "tiny", "message": message, "done": True, "done_reason": "load"}


@pytest.mark.parametrize("path", [GENERATE, CHAT])
def test_an_empty_request_with_keep_alive_0_unloads_the_model(engine: FakeEngine, path: str) -> None:
    with serving(engine) as runner:
        assert runner.post(path, {"model": "tiny", "keep_alive": 0}).json()["done_reason"] == "unload"
        activity = runner.http.get("/activity").json()
    assert activity["keep_alive_s"] == 0
    assert activity["expires_in_s"] <= 0


def test_an_unload_request_is_answered_while_the_model_loads() -> None:
    with serving_state(runner_state()) as runner:
        assert runner.post(GENERATE, {"model": "tiny", "keep_alive": "0"}).json()["done_reason"] == "unload"
        assert runner.http.get("/activity").json()["keep_alive_s"] == 300


def test_an_engine_error_before_the_first_byte_is_a_500(engine: FakeEngine) -> None:
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


def test_an_unexpected_error_reveals_only_its_type(engine: FakeEngine) -> None:
    engine.script = (RuntimeError("secret"),)
    with serving(engine) as runner:
        response = runner.post(CHAT, HELLO)
    assert (response.status_code, response.json()) == (500, {"error": "internal error: RuntimeError"})


def test_text_is_echoed_as_utf8(engine: FakeEngine) -> None:
    engine.script = ('grüß "Gott" \n\u2028😀',)
    with serving(engine) as runner:
        body = runner.post(CHAT, HELLO | {"stream": False}).json()
    assert body["message"]["content"] == 'grüß "Gott" \n\u2028😀'


def test_a_generation_that_repeats_one_token_continues(runner: ServedRunner, engine: FakeEngine) -> None:
    """Ollama ends such a stream without a final line."""
    engine.script = (" a",) * 40
    lines = [json.loads(line) for line in runner.post(CHAT, HELLO).text.splitlines()]
    assert "".join(line["message"]["content"] for line in lines) == " a" * 40
    assert lines[-1]["done_reason"] == "stop"
