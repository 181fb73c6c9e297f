"""A runner's log contains nothing of a request, whatever field has the text and whatever error occurs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from corral_core.base.json_log import JsonLineFormatter
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import METADATA, ServedRunner, serving

pytestmark = pytest.mark.slow

ABLE = replace(METADATA, capabilities=("completion", "tools", "embedding"))
SECRET = "s3cr3t words"
MESSAGES = [{"role": "user", "content": SECRET}]
TOOLS = [{"type": "function", "function": {"name": "f", "description": SECRET, "parameters": {"type": "object"}}}]
SCHEMA = {"type": "object", "properties": {SECRET: {"enum": [SECRET]}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}}
REQUESTS: Mapping[str, Mapping[str, object]] = {
    "/api/generate": {"prompt": SECRET, "system": SECRET, "format": SCHEMA, "options": {SECRET: 1}},
    "/api/chat": {
        "messages": MESSAGES,
        "tools": TOOLS,
        "format": SCHEMA,
        "options": {"stop": [SECRET]},
    },
    "/api/embed": {"input": [SECRET], "truncate": True},
    "/api/show": {"system": SECRET},
    "/v1/chat/completions": {"messages": MESSAGES, "tools": TOOLS, "stop": SECRET, "response_format": FORMAT},
    "/v1/completions": {"prompt": SECRET},
    "/v1/embeddings": {"input": SECRET, "encoding_format": "base64"},
    "/v1/responses": {"input": SECRET, "instructions": SECRET, "tools": TOOLS},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 9, "system": SECRET, "tools": TOOLS},
}
WRONG: tuple[object, ...] = (SECRET, [SECRET], {SECRET: SECRET}, {"type": SECRET}, [{"role": SECRET, "type": SECRET}])


def variants(fields: Mapping[str, object]) -> Iterator[Mapping[str, object]]:
    """Yield the request, and variants with one field replaced or added."""
    whole = {"model": "tiny", **fields}
    yield whole
    for name in (*whole, "keep_alive", "options", "images", "template", "suffix", "raw", "think", SECRET):
        for value in WRONG:
            yield {**whole, name: value}


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """Return the log of this process without the lines of the test's HTTP client."""
    records = [record for record in caplog.records if not record.name.startswith(("http", "hpack"))]
    return "\n".join(JsonLineFormatter().format(record) for record in records)


def asked(runner: ServedRunner, path: str) -> list[int]:
    return [runner.post(path, body).status_code for body in variants(REQUESTS[path])]


@pytest.mark.parametrize("path", REQUESTS)
def test_nothing_of_a_request_is_logged(path: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), serving(FakeEngine(), metadata=ABLE) as runner:
        codes = asked(runner, path)
        assert codes[0] == 200
        assert 400 in codes
        assert runner.post(path, raw=b'{"model":"tiny","prompt":"' + SECRET.encode()).status_code == 400
        runner.http.post(f"{path}?q={SECRET}", content=SECRET.encode(), headers={"x-prompt": SECRET})
    assert SECRET.split()[0] not in logged(caplog)


def test_an_unexpected_error_is_logged_with_its_location_and_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    engine = FakeEngine(script=(KeyError(SECRET),))
    with caplog.at_level(logging.DEBUG), serving(engine) as runner:
        answer = runner.post("/api/chat", {"model": "tiny", "messages": MESSAGES, "stream": False})
        assert answer.status_code == 500
    written = logged(caplog)
    assert "KeyError" in written
    assert "fake_engine.py" in written
    assert SECRET not in written
    assert SECRET not in answer.text
