"""``/infill`` with a fake engine: prompts, responses and refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from corral_server.runner.llama.vocabulary import SpecialTokens
from tests.support.event_stream import event_data
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import METADATA, ServedRunner, serving

BOS, PREFIX, SUFFIX, MIDDLE, REPOSITORY, SEPARATOR = 1, 2, 3, 4, 5, 6
FIM = SpecialTokens(bos=BOS, adds_bos=True, fim_prefix=PREFIX, fim_suffix=SUFFIX, fim_middle=MIDDLE)
FILES = replace(FIM, fim_repository=REPOSITORY, fim_separator=SEPARATOR)
BODY: dict[str, object] = {"input_prefix": "before", "input_suffix": "after"}
EXTRA = [{"text": "one", "filename": "a.py"}, {"text": "two"}]


@pytest.fixture(scope="module")
def shared_engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(scope="module")
def runner(shared_engine: FakeEngine) -> Iterator[ServedRunner]:
    with serving(shared_engine) as runner:
        yield runner


@pytest.fixture(autouse=True)
def engine(shared_engine: FakeEngine) -> FakeEngine:
    shared_engine.special_tokens = FIM
    shared_engine.context_length = 4096
    shared_engine.script = ("Hello", ", world")
    shared_engine.tasks.clear()
    return shared_engine


def prompt(runner: ServedRunner, engine: FakeEngine, **fields: object) -> list[int]:
    """Return the tokens of the prompt of a request."""
    assert runner.post("/infill", BODY | fields).status_code == 200
    return list(engine.tasks[-1].prompt)


def test_the_prompt_has_the_text_around_the_middle(runner: ServedRunner, engine: FakeEngine) -> None:
    tokens = prompt(runner, engine, prompt="mid<s>")
    assert tokens == [BOS, PREFIX, *b"before", *b"mid<s>", SUFFIX, *b"after", MIDDLE]


def test_extra_files_precede_the_prompt(runner: ServedRunner, engine: FakeEngine) -> None:
    engine.special_tokens = FILES
    files = [REPOSITORY, *b"myproject\n", SEPARATOR, *b"a.py\none", SEPARATOR, *b"tmp\ntwo", SEPARATOR, *b"filename\n"]
    plain = [BOS, PREFIX, *b"before", SUFFIX, *b"after", MIDDLE]
    assert prompt(runner, engine, input_extra=EXTRA) == files + plain


def test_without_a_separator_token_extra_files_are_snippets(runner: ServedRunner, engine: FakeEngine) -> None:
    snippet = b"\n\n--- snippet ---\n\n"
    expected = [*snippet, *b"one", *snippet, *b"two", BOS, PREFIX, *b"before", SUFFIX, *b"after", MIDDLE]
    assert prompt(runner, engine, input_extra=EXTRA) == expected


@pytest.mark.parametrize("output", [-1, 10, 100000])
def test_long_parts_are_cut_around_the_cursor_and_fit_with_the_output(
    runner: ServedRunner, engine: FakeEngine, output: int
) -> None:
    engine.context_length = 400
    long = {"input_prefix": "x" * 3000 + "p", "input_suffix": "s" + "y" * 3000, "prompt": "m" * 3000}
    tokens = prompt(runner, engine, **long, input_extra=[{"text": "e" * 9000 + "E"}], n_predict=output)
    kept_for_output = 10 if output == 10 else 100
    assert 380 < len(tokens) + kept_for_output <= 400
    cursor = tokens.index(PREFIX)
    assert tokens[cursor - 2 : cursor] == [ord("E"), BOS]
    assert tokens[cursor + 1 : tokens.index(SUFFIX)] == [*b"x" * 149, ord("p"), *b"m" * 50]
    assert tokens[-2:] == [SUFFIX, MIDDLE]


def test_the_prefix_keeps_its_end_and_the_suffix_its_beginning(runner: ServedRunner, engine: FakeEngine) -> None:
    engine.context_length = 80
    tokens = prompt(runner, engine, input_prefix="x" * 500 + "p", input_suffix="s" + "y" * 500)
    assert tokens == [BOS, PREFIX, *b"x" * 29, *b"p", SUFFIX, *b"s", *b"y" * 9, MIDDLE]


def test_a_whole_response(runner: ServedRunner) -> None:
    body = runner.post("/infill", BODY).json()
    assert body.pop("timings")["predicted_n"] == 2
    prompt_tokens = 15
    assert body == {
        "index": 0,
        "content": "Hello, world",
        "tokens": [],
        "stop": True,
        "model": "default/tiny",
        "truncated": False,
        "stop_type": "eos",
        "stopping_word": "",
        "tokens_cached": prompt_tokens + 2,
        "tokens_predicted": 2,
        "tokens_evaluated": prompt_tokens,
    }


def test_response_fields_select_members_and_keep_the_usage(runner: ServedRunner) -> None:
    wanted = ["content", "timings/predicted_n", "nothing", "stop/x"]
    assert runner.post("/infill", BODY | {"response_fields": wanted}).json() == {
        "content": "Hello, world",
        "timings/predicted_n": 2,
        "tokens_predicted": 2,
        "tokens_evaluated": 15,
    }


def test_a_stream_has_text_and_ends_with_stop(runner: ServedRunner) -> None:
    response = runner.post("/infill", BODY | {"stream": True, "model": "tiny"})
    first, second, last = (json.loads(data) for data in event_data(response))
    assert (first["content"], second["content"], first["stop"]) == ("Hello", ", world", False)
    assert (last["content"], last["stop"], last["model"], last["tokens_predicted"]) == ("", True, "tiny", 2)


def test_sampling_fields_reach_the_engine(runner: ServedRunner, engine: FakeEngine) -> None:
    prompt(runner, engine, n_predict=7, temperature=0.5, top_k=3, stop=["\n"], seed=5, samplers=["top_k"])
    task = engine.tasks[-1]
    assert (task.max_tokens, task.stop, task.context_shift) == (7, ("\n",), False)
    assert (task.sampling.temperature, task.sampling.top_k, task.sampling.seed) == (0.5, 3, 5)


def test_no_tokens_to_predict_evaluates_the_prompt_and_returns_no_text(
    runner: ServedRunner, engine: FakeEngine
) -> None:
    body = runner.post("/infill", BODY | {"n_predict": 0}).json()
    assert engine.tasks[-1].max_tokens == 1
    assert (body["content"], body["tokens_predicted"]) == ("", 0)


def test_a_model_without_fim_tokens_is_refused(runner: ServedRunner, engine: FakeEngine) -> None:
    engine.special_tokens = replace(FIM, fim_suffix=-1, fim_middle=-1)
    response = runner.post("/infill", BODY)
    assert (response.status_code, response.json()["error"]) == (
        501,
        {
            "message": "Infill is not supported by this model: suffix token is missing. middle token is missing. ",
            "type": "not_supported_error",
            "param": None,
            "code": 501,
        },
    )


def test_an_embedding_model_is_refused(engine: FakeEngine) -> None:
    with serving(engine, metadata=replace(METADATA, capabilities=("embedding",))) as runner:
        response = runner.post("/infill", BODY | {"model": "tiny"})
    assert (response.status_code, response.json()["error"]["message"]) == (400, '"tiny" does not support infill')


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ({"input_prefix": None}, '"input_prefix" is required'),
        ({"input_suffix": None}, '"input_suffix" is required'),
        ({"prompt": ["a"]}, '"prompt" must be a string'),
        ({"input_extra": [{}]}, 'extra_context chunk must contain a "text" field with a string value'),
        (
            {"input_extra": [5]},
            "json: cannot unmarshal number into Go struct field InfillRequest.input_extra of type llama.InfillExtra",
        ),
        (
            {"n_predict": "x"},
            "json: cannot unmarshal string into Go struct field InfillRequest.n_predict of type int",
        ),
    ],
)
def test_refusals(runner: ServedRunner, field: dict[str, object], text: str) -> None:
    response = runner.post("/infill", BODY | field)
    assert (response.status_code, response.json()["error"]["message"]) == (400, text)
