"""The answers of Corral to invalid requests, compared with the recorded ones of the real Ollama.

What differs on purpose is in ``DIFFERENT``, with the reason, and must differ.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.clients.ollama_recording import Answer, answer, record, recorded
from tests.clients.ollama_requests import REQUESTS
from tests.local.served import Served
from tests.pull.servers.ollama_server import ollama_server

pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]

DIFFERENT: Mapping[str, str] = {
    r"POST /v1/responses( \S{1,2}| \{\"model\": (1|\"\").*)?": "errors have no code; other texts for what is no object",
    r"\S+ /v1/.*nope:(1b-)?cloud.*": "an error has the format of the API; Ollama's is that of /api",
    r"GET /v1/models/.+/.+": "a name with a slash is looked up; Ollama has no such path",
    r".*typical_p.*": "typical_p is applied",
    r"POST /v1/(messages/count_tokens|rerank)": "served; Ollama has no such paths",
    r"POST /api/push .*(/x|a b|x{80,}|b:c|x:|:x|e/s|:cloud)\".*": "bad names have one text",
    r"POST /api/create .*\{\{ \.Bad.*": "a template is checked by the runner",
    r"POST /v1/audio/transcriptions": "there are no transcriptions",
}
PATHS = sorted({sent.path.rpartition("/")[0] if "/models/" in sent.path else sent.path for sent in REQUESTS})


@pytest.fixture(autouse=True)
def nothing_left(served: Served) -> Iterator[None]:
    """Delete the models of requests that Corral accepts and Ollama refuses."""
    before = {model.model for model in served.client.list().models}
    yield
    for model in served.client.list().models:
        if model.model and model.model not in before:
            served.client.delete(model.model)


@pytest.mark.clients
def test_the_recording_is_what_ollama_answers(ollama_program: Path, tmp_path: Path) -> None:
    with ollama_server(ollama_program, tmp_path, OLLAMA_NO_CLOUD="1") as server:
        assert record(server, tmp_path) == recorded()


@pytest.mark.parametrize("path", PATHS)
def test_invalid_requests_get_the_answers_of_ollama(served: Served, path: str) -> None:
    expected = {text: _compared(found) for text, found in recorded().items()}
    sent = [sent for sent in REQUESTS if sent.path.startswith(path)]
    host = served.url.removeprefix("http://")
    found = {str(one): _compared(answer(host, one)) for one in sent}
    for made in {model.model or "" for model in served.client.list().models} & {"new:latest"}:
        served.client.delete(made)
    different = {text for text in found if any(re.fullmatch(pattern, text) for pattern in DIFFERENT)}
    assert {text: found[text] for text in found if text not in different} == {
        text: expected[text] for text in found if text not in different
    }
    assert [text for text in different if found[text] == expected[text]] == []


def _compared(found: Answer) -> Answer:
    """Return the answer without what no client reads: charset, type of an empty body, escapes, a newline at the end."""
    media_type = (found.media_type or "").partition(";")[0] if found.body else None
    body = found.body.removesuffix("\n").replace("\\u003c", "<").replace("\\u003e", ">").replace("\\u0026", "&")
    return Answer(found.status, media_type, body)
