"""The HTTP level that clients hide: headers, content types, timestamps; names that share one runner."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.clients.served_models import CHATS, EMBEDS, SYSTEM
from tests.local.served import START, Served
from tests.support.waiting import until

pytestmark = pytest.mark.process

NANOSECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z")
HELLO = {"messages": [{"role": "user", "content": "hi"}]}
FEW = {"num_predict": 2, "temperature": 0}


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=START, trust_env=False) as client:
        yield client


def test_content_type_authorization_and_query_are_ignored(http: httpx.Client) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded", "authorization": "Bearer x"}
    body = b'{"model":"tiny","MESSAGES":[{"role":"user","content":"hi"}],"stream":false,"odd":1} {"model":"nope"}'
    answer = http.post("/api/chat?ts=1", content=body, headers=headers)
    assert (answer.status_code, answer.json()["message"]["role"]) == (200, "assistant")


@pytest.mark.parametrize(
    ("path", "stream", "kind"),
    [
        ("/api/chat", None, "application/x-ndjson"),
        ("/api/chat", True, "application/x-ndjson"),
        ("/api/chat", False, "application/json; charset=utf-8"),
        ("/v1/chat/completions", None, "application/json; charset=utf-8"),
        ("/v1/chat/completions", True, "text/event-stream"),
        ("/v1/messages", True, "text/event-stream"),
    ],
)
def test_the_content_type_matches_the_format(http: httpx.Client, path: str, stream: bool | None, kind: str) -> None:
    body = {"model": CHATS, **HELLO, "stream": stream, "max_tokens": 2, "options": FEW}
    assert http.post(path, json=body).headers["content-type"] == kind


def test_timestamps_are_utc_with_nanoseconds(http: httpx.Client) -> None:
    said = http.post("/api/generate", json={"model": CHATS, "prompt": "hi", "stream": False, "options": FEW}).json()
    (tag, *_) = http.get("/api/tags").json()["models"]
    (running, *_) = http.get("/api/ps").json()["models"]
    for time in (said["created_at"], tag["modified_at"], running["expires_at"]):
        assert NANOSECONDS.fullmatch(time)


def test_the_names_of_a_model_share_one_runner(http: httpx.Client, served: Served) -> None:
    before = None
    for name in ("tiny", "SmolLM2:135m"):
        said = http.post("/api/generate", json={"model": name, "prompt": "hi", "stream": False, "options": FEW}).json()
        assert said["model"] == name
        assert before in (None, served.runners())
        before = served.runners()
    assert [model["name"] for model in running(http) if model["name"] == "smollm2:135m"] == []
    unloaded = http.post("/api/generate", json={"model": "smollm2:135m", "keep_alive": 0}).json()
    assert unloaded["done_reason"] == "unload"
    until(lambda: "tiny:latest" not in [model["name"] for model in running(http)], START)


def test_context_length_is_per_slot_and_load_options_do_not_reload(http: httpx.Client, served: Served) -> None:
    """The Model has four slots."""
    loaded: list[list[int]] = []
    for options in (FEW, FEW | {"num_ctx": 512, "num_batch": 64}, FEW | {"temperature": 0.5}):
        http.post("/api/generate", json={"model": CHATS, "prompt": "hi", "stream": False, "options": options})
        (model,) = [model for model in running(http) if model["name"] == "tiny:latest"]
        assert model["context_length"] == 1024
        loaded.append(served.runners())
    assert loaded[0] == loaded[1] == loaded[2]


def test_keep_alive_is_sticky_across_apis(http: httpx.Client) -> None:
    http.post("/api/generate", json={"model": CHATS, "keep_alive": -1})
    http.post("/api/chat", json={"model": CHATS, **HELLO, "options": FEW})
    http.post("/v1/chat/completions", json={"model": CHATS, **HELLO, "max_tokens": 2})
    (model,) = [model for model in running(http) if model["name"] == "tiny:latest"]
    assert str(model["expires_at"]) > "2200"
    http.post("/api/generate", json={"model": CHATS, "keep_alive": "5m"})


def test_debug_render_only(http: httpx.Client) -> None:
    body = {"model": CHATS, **HELLO, "_debug_render_only": True, "stream": False}
    said = http.post("/api/chat", json=body).json()
    assert SYSTEM in said["_debug_info"]["rendered_template"]


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("/v1/chat/completions", {"n": 3, "logit_bias": {"1": 1}, "user": "a", "store": True}),
        ("/v1/responses", {"input": "hi", "previous_response_id": "resp_1", "conversation": "c"}),
        ("/v1/messages", {"metadata": {"user_id": "a"}, "service_tier": "auto"}),
    ],
)
def test_ignored_fields_are_accepted(http: httpx.Client, path: str, ignored: dict[str, object]) -> None:
    body = {"model": CHATS, **HELLO, "max_tokens": 2, "max_output_tokens": 2, **ignored}
    answer = http.post(path, json=body, headers={"anthropic-version": "2023-06-01", "x-api-key": "none"})
    assert answer.status_code == 200


def test_an_embed_request_without_input_loads_the_model(http: httpx.Client) -> None:
    assert http.post("/api/embed", json={"model": EMBEDS}).json() == {"model": EMBEDS, "embeddings": []}
    assert http.post("/api/embeddings", json={"model": EMBEDS}).json() == {"embedding": []}


def running(http: httpx.Client) -> list[dict[str, object]]:
    found: list[dict[str, object]] = http.get("/api/ps").json()["models"]
    return found
