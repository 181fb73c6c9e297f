"""Pull, push, create, copy, delete and blobs: what clients and the ``ollama`` command rely on."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.gateway.api.test_metadata import ask
from tests.support.gateway import entry

MANAGED = "models are managed as Model resources here: apply or delete a Model instead"
PUSHING = (
    "models are not pushed from here: push the weights to a registry from where they are (ollama push, or oras push "
    "for an OCI registry), and create the model from there"
)
TWO_SOURCES = 'use either :local or :cloud, not both: "a:local:cloud"'
DIGEST = "sha256:" + "0" * 64


def lines(path: str, **body: object) -> list[dict[str, object]]:
    answer = ask("POST", path, entry("tiny"), body=body)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


@pytest.mark.parametrize("field", ["model", "name"])
def test_a_pull_of_a_models_name_succeeds(field: str) -> None:
    said = lines("/api/pull", **{field: "TINY"})
    layer = {"digest": "sha256:" + "ab" * 32, "total": 98_000_000, "completed": 98_000_000}
    assert said == [
        {"status": "pulling manifest"},
        {"status": "pulling abababababab", **layer},
        {"status": "verifying sha256 digest"},
        {"status": "writing manifest"},
        {"status": "success"},
    ]


def test_a_pull_without_a_stream_is_one_object() -> None:
    answer = ask("POST", "/api/pull", entry("tiny"), body={"model": "tiny", "stream": False})
    assert (answer.status_code, answer.json()) == (200, {"status": "success"})


def test_a_pull_without_metadata_has_no_size() -> None:
    answer = ask("POST", "/api/pull", entry("tiny", metadata=None), body={"model": "tiny"})
    assert "total" not in answer.text
    assert answer.text.endswith('{"status":"success"}\n')


def test_a_pull_of_an_unknown_name_ends_with_ollamas_error() -> None:
    error = {"error": "pull model manifest: file does not exist"}
    assert lines("/api/pull", model="nope") == [{"status": "pulling manifest"}, error]
    answer = ask("POST", "/api/pull", body={"model": "nope", "stream": False})
    assert (answer.status_code, answer.json()) == (500, error)


def test_a_pull_of_an_unavailable_model_ends_with_the_reason() -> None:
    answer = ask(
        "POST", "/api/pull", replace(entry("tiny"), unavailable_reason="it is suspended"), body={"model": "tiny"}
    )
    assert json.loads(answer.text.splitlines()[-1]) == {"error": "it is suspended"}


def test_a_push_of_an_unknown_name() -> None:
    said = lines("/api/push", model="nope")
    assert [line.get("status") for line in said] == ["retrieving manifest", "couldn't retrieve manifest", None]
    assert "error" in said[-1]
    assert ask("POST", "/api/push", body={"model": "nope", "stream": False}).status_code == 500


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("POST", "/api/pull", {}, 400, "invalid model name"),
        ("POST", "/api/pull", {"model": "a//b"}, 400, "invalid model name"),
        (
            "POST",
            "/api/pull",
            {"model": "a:local:cloud"},
            400,
            TWO_SOURCES,
        ),
        (
            "DELETE",
            "/api/delete",
            {"model": "a:local:cloud"},
            400,
            TWO_SOURCES,
        ),
        ("POST", "/api/push", {}, 400, "model is required"),
        ("POST", "/api/push", {"model": "tiny"}, 501, PUSHING),
        ("POST", "/api/create", {}, 400, "invalid model name"),
        ("POST", "/api/create", {"model": "new"}, 400, "neither 'from' or 'files' was specified"),
        ("POST", "/api/create", {"model": "new", "from": "tiny"}, 501, MANAGED),
        ("POST", "/api/copy", {"source": "a//b", "destination": "b"}, 400, 'source "a//b" is invalid'),
        ("POST", "/api/copy", {"source": "tiny", "destination": ""}, 400, 'destination "" is invalid'),
        ("POST", "/api/copy", {"source": "nope", "destination": "b"}, 404, 'model "nope" not found'),
        ("POST", "/api/copy", {"source": "tiny", "destination": "b"}, 501, MANAGED),
        ("DELETE", "/api/delete", {}, 400, "model is required"),
        ("DELETE", "/api/delete", {"model": "a//b"}, 400, 'name "a//b" is invalid'),
        ("DELETE", "/api/delete", {"name": "nope"}, 404, "model 'nope' not found"),
        ("DELETE", "/api/delete", {"model": "tiny"}, 501, MANAGED),
        ("POST", f"/api/blobs/{DIGEST}", {}, 501, MANAGED),
        ("POST", "/api/blobs/sha256:12", {}, 400, "invalid digest format"),
    ],
)
def test_unsupported_operations(method: str, path: str, body: object, status: int, text: str) -> None:
    answer = ask(method, path, entry("tiny"), body=body)
    assert (answer.status_code, answer.json()) == (status, {"error": text})


@pytest.mark.parametrize(("digest", "status"), [(DIGEST, 404), ("sha256:12", 400)])
def test_no_blob_exists(digest: str, status: int) -> None:
    assert ask("HEAD", f"/api/blobs/{digest}").status_code == status


@pytest.mark.parametrize("path", ["/api/pull", "/api/push", "/api/create", "/api/copy"])
def test_a_missing_body(path: str) -> None:
    answer = ask("POST", path)
    assert (answer.status_code, answer.json()) == (400, {"error": "missing request body"})


def test_a_pull_gets_503_before_the_models_are_listed() -> None:
    assert ask("POST", "/api/pull", ready=False, body={"model": "tiny"}).status_code == 503
