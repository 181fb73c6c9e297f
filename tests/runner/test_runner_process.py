"""A real runner process with the real small model, used by official clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import ollama
import openai
import pytest

from tests.runner.engines import weights
from tests.support.runner_process import RunnerProcess, runner_environment, runner_process
from tests.support.waiting import until

pytestmark = pytest.mark.process

GREEDY = {"temperature": 0, "num_predict": 8}
QUESTION = "What is the capital of France?"
ASK = [{"role": "user", "content": QUESTION}]
LONG = {
    "model": "smollm2",
    "prompt": "1, 2, 3, 4, 5, 6,",
    "raw": True,
    "options": {"num_predict": 4000, "temperature": 0},
}


@pytest.fixture(scope="module")
def runner() -> Iterator[RunnerProcess]:
    weights()
    with runner_process(runner_environment(spec={"contextLength": 512, "parallel": 2})) as runner:
        yield runner.wait_ready()


@pytest.fixture
def client(runner: RunnerProcess) -> Iterator[ollama.Client]:
    client = ollama.Client(host=runner.url, trust_env=False, timeout=60)
    yield client
    client._client.close()


@pytest.fixture
def http(runner: RunnerProcess) -> Iterator[httpx.Client]:
    with runner.client() as http:
        yield http


def test_chat_streams_to_ollamas_client(client: ollama.Client) -> None:
    chunks = list(client.chat("smollm2", messages=ASK, options=GREEDY, stream=True))
    assert "".join(chunk.message.content or "" for chunk in chunks)
    last = chunks[-1]
    assert (last.done, last.done_reason, last.eval_count) == (True, "length", 8)
    assert last.prompt_eval_count is not None
    assert last.prompt_eval_count > 20


def test_generate_returns_a_context_for_the_next_request(client: ollama.Client) -> None:
    first = client.generate("smollm2", prompt=QUESTION, options=GREEDY)
    assert first.context is not None
    second = client.generate("smollm2", prompt="And of Italy?", context=first.context, options=GREEDY)
    assert second.context is not None
    assert second.context[: len(first.context)] == first.context


def test_a_seed_repeats_a_generation(client: ollama.Client) -> None:
    options = {"seed": 42, "temperature": 1.0, "num_predict": 12}
    answers = {client.generate("smollm2", prompt="Tell me a story.", options=options).response for _ in range(2)}
    assert len(answers) == 1


def test_a_stop_string_ends_the_generation_and_is_not_returned(client: ollama.Client) -> None:
    answer = client.generate("smollm2", prompt="A B C D E F G H", raw=True, options=GREEDY | {"stop": ["J", "K"]})
    assert answer.done_reason == "stop"
    assert "J" not in (answer.response or "")


def test_a_schema_is_enforced(client: ollama.Client) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]}
    answer = client.chat("smollm2", messages=ASK, format=schema, options={"temperature": 0, "num_predict": 60})
    assert list(json.loads(answer.message.content or "")) == ["city"]


def test_a_full_context_ends_a_generation_unless_it_may_shift(http: httpx.Client) -> None:
    prompt = ", ".join(map(str, range(100, 198)))
    body = {"model": "a", "prompt": prompt, "raw": True, "stream": False}
    body["options"] = {"num_predict": 48, "temperature": 0}
    ended = http.post("/api/generate", json=body | {"shift": False}).json()
    assert ended["done_reason"] == "length"
    assert 512 <= ended["prompt_eval_count"] + ended["eval_count"] <= 513
    shifted = http.post("/api/generate", json=body).json()
    assert shifted["eval_count"] == 48


def test_openais_client_streams_with_usage(runner: RunnerProcess) -> None:
    with openai.OpenAI(base_url=f"{runner.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        stream = client.chat.completions.create(
            model="smollm2",
            messages=[{"role": "user", "content": QUESTION}],
            max_tokens=5,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = list(stream)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert chunks[-2].choices[0].finish_reason == "length"


def test_openais_client_gets_a_whole_completion(runner: RunnerProcess) -> None:
    with openai.OpenAI(base_url=f"{runner.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        answer = client.chat.completions.create(
            model="smollm2", messages=[{"role": "user", "content": QUESTION}], max_tokens=4
        )
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 4


def test_openais_client_raises_its_own_error_type(runner: RunnerProcess) -> None:
    with (
        openai.OpenAI(base_url=f"{runner.url}/v1", api_key="none", max_retries=0, timeout=60) as client,
        pytest.raises(openai.BadRequestError, match="too short"),
    ):
        client.chat.completions.create(model="smollm2", messages=[])


def test_show_describes_the_loaded_model(client: ollama.Client) -> None:
    shown = client.show("smollm2")
    assert shown.details is not None
    assert (shown.details.family, shown.details.quantization_level) == ("llama", "Q4_1")
    assert shown.modelinfo is not None
    assert shown.modelinfo["llama.context_length"] == 8192


def test_more_requests_than_slots_are_all_answered(client: ollama.Client) -> None:
    def ask(number: int) -> str:
        return client.generate("smollm2", prompt=f"{number} and", raw=True, options=GREEDY).response or ""

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(ask, range(6)))


def test_a_disconnected_client_frees_its_slot(runner: RunnerProcess, http: httpx.Client) -> None:
    with runner.client() as leaving, leaving.stream("POST", "/api/generate", json=LONG) as response:
        lines = response.iter_lines()
        next(lines)
        assert http.get("/activity").json()["in_flight"] == 1
    until(lambda: http.get("/activity").json()["in_flight"] == 0, 5, what="the end of the generation")


BAD_BODIES: list[tuple[str, bytes, int]] = [
    ("/api/generate", b"", 400),
    ("/api/generate", b"{", 400),
    ("/api/generate", b"\xff\xfe\x00", 400),
    ("/api/generate", b'{"model":"a","prompt":' + b"[" * 100_000, 400),
    ("/api/generate", b'{"model":"a","prompt":7}', 400),
    ("/api/generate", b'{"model":"a","prompt":"x","options":{"temperature":"hot"}}', 500),
    ("/api/generate", b'{"model":"a","prompt":"x","context":[-1]}', 400),
    ("/api/generate", b'{"model":"a","prompt":"x","context":[999999999999]}', 400),
    ("/api/generate", b'{"model":"a","prompt":"x","template":"{% for %}"}', 400),
    ("/api/generate", b'{"model":"a","prompt":"x","template":"{{ 9 ** 9 ** 9 }}"}', 400),
    ("/api/generate", b'{"model":"a","prompt":"x","template":"{{ nonsense .Prompt }}"}', 400),
    ("/api/generate", b'{"model":"a","prompt":"x","format":{"type":"nonsense"}}', 400),
    ("/api/generate", b'{"model":"a","prompt":"x","format":{"enum":[]}}', 400),
    ("/api/generate", b'{"model":"a","prompt":"x","format":"yaml"}', 500),
    ("/api/chat", b'{"model":"a","messages":[{"role":"user","content":{}}]}', 400),
    ("/api/chat", b'{"model":"a","messages":[7]}', 400),
    ("/v1/chat/completions", b'{"model":"a","messages":[{"role":"user","content":true}]}', 400),
    ("/v1/chat/completions", b"nonsense", 400),
]


@pytest.mark.parametrize(("path", "body", "status"), BAD_BODIES)
def test_invalid_input_is_refused_and_the_next_request_works(
    http: httpx.Client, path: str, body: bytes, status: int
) -> None:
    refused = http.post(path, content=body)
    assert refused.status_code == status
    assert refused.json()["error"]
    good = {"model": "a", "prompt": "x", "stream": False, "options": {"num_predict": 1}}
    assert http.post("/api/generate", json=good).status_code == 200


@pytest.mark.parametrize("text", ["\x00", "😀", "<|im_start|>", " " * 3000])
def test_unusual_prompts_are_answered(http: httpx.Client, text: str) -> None:
    body = {"model": "a", "prompt": text, "stream": False, "options": {"num_predict": 2}}
    assert http.post("/api/generate", json=body).status_code == 200


@pytest.mark.parametrize(
    "options",
    [
        {"num_keep": -5},
        {"num_keep": 10**9},
        {"top_k": -1, "top_p": -1},
        {"seed": 2**40},
        {"temperature": 1e38, "min_p": 5},
        {"temperature": -1},
        {"repeat_penalty": 0, "repeat_last_n": -1},
    ],
)
def test_unusual_options_are_answered(http: httpx.Client, options: dict[str, object]) -> None:
    body = {"model": "a", "prompt": "x", "stream": False, "options": {"num_predict": 3, **options}}
    assert http.post("/api/generate", json=body).status_code == 200


def test_a_prompt_longer_than_the_context_is_truncated_unless_shift_is_false(http: httpx.Client) -> None:
    body = {"model": "a", "prompt": "word " * 2000, "stream": False, "options": {"num_predict": 2}}
    refused = http.post("/api/generate", json=body | {"shift": False})
    assert refused.status_code == 400
    assert "longer than the context length" in refused.json()["error"]
    assert http.post("/api/generate", json=body).json()["prompt_eval_count"] < 512


def test_keep_alive_is_sticky_until_an_unload_request(client: ollama.Client, http: httpx.Client) -> None:
    client.generate("smollm2", prompt="x", keep_alive="90s", options={"num_predict": 1})
    client.generate("smollm2", prompt="x", options={"num_predict": 1})
    activity = http.get("/activity").json()
    assert activity["keep_alive_s"] == 90
    assert activity["expires_in_s"] == pytest.approx(90 - activity["idle_s"])
    assert client.generate("smollm2", keep_alive=0).done_reason == "unload"
    assert http.get("/activity").json()["keep_alive_s"] == 0
