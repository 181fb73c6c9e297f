"""A runner's log holds nothing of what it was asked, wherever in a request the text stands and whatever goes wrong."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import pytest

from corral_core.jsonlog import JsonLines
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import ServedRunner, serving

SECRET = "s3cr3t words"
MESSAGES = [{"role": "user", "content": SECRET}]
TOOLS = [{"type": "function", "function": {"name": "f", "description": SECRET, "parameters": {"type": "object"}}}]
SCHEMA = {"type": "object", "properties": {SECRET: {"enum": [SECRET]}}}
REQUESTS: Mapping[str, Mapping[str, object]] = {
    "/api/generate": {"prompt": SECRET, "system": SECRET, "suffix": SECRET, "format": SCHEMA, "raw": True},
    "/api/chat": {
        "messages": MESSAGES,
        "tools": TOOLS,
        "format": SCHEMA,
        "think": False,
        "options": {"stop": [SECRET]},
    },
    "/api/embed": {"input": [SECRET], "truncate": True},
    "/api/show": {"system": SECRET},
    "/v1/chat/completions": {"messages": MESSAGES, "tools": TOOLS, "response_format": SCHEMA, "stop": SECRET},
    "/v1/completions": {"prompt": SECRET, "suffix": SECRET},
    "/v1/embeddings": {"input": SECRET, "encoding_format": SECRET},
    "/v1/responses": {"input": SECRET, "instructions": SECRET, "tools": TOOLS},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 9, "system": SECRET, "tools": TOOLS},
}
WRONG: tuple[object, ...] = (SECRET, [SECRET], {SECRET: SECRET}, {"type": SECRET}, [{"role": SECRET, "type": SECRET}])


def variants(fields: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """The request, and each of its fields and some others with something else in it."""
    whole = {"model": "tiny", **fields}
    yield whole
    for name in (*whole, "keep_alive", "options", "images", "template", SECRET):
        for value in WRONG:
            yield {**whole, name: value}


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """Of this process's own, not of the test's client."""
    records = [record for record in caplog.records if not record.name.startswith(("http", "hpack"))]
    return "\n".join(JsonLines().format(record) for record in records)


def asked(runner: ServedRunner, path: str) -> set[int]:
    return {runner.post(path, body).status_code for body in variants(REQUESTS[path])}


@pytest.mark.parametrize("path", REQUESTS)
def test_whatever_is_asked_and_however_wrongly_is_not_logged(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), serving(FakeEngine()) as runner:
        assert {200, 400} & asked(runner, path)
        assert runner.post(path, raw=b'{"model":"tiny","prompt":"' + SECRET.encode()).status_code == 400
        runner.http.post(f"{path}?q={SECRET}", content=SECRET.encode(), headers={"x-prompt": SECRET})
    assert SECRET.split()[0] not in logged(caplog)


def test_an_unexpected_error_is_logged_with_its_place_and_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine(script=(KeyError(SECRET),))
    with caplog.at_level(logging.DEBUG), serving(engine) as runner:
        answer = runner.post("/api/chat", {"model": "tiny", "messages": MESSAGES, "stream": False})
        assert answer.status_code == 500
    written = logged(caplog)
    assert "KeyError" in written
    assert "fake_engine.py" in written
    assert SECRET not in written
    assert SECRET not in answer.text
