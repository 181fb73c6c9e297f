"""``/api/pull`` of a name that no Model has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from corral_core.base.json_fields import JsonObject
from corral_server.gateway.directory.directory import ModelEntry, PullingFile
from corral_server.gateway.management import changes
from corral_server.gateway.management.documents import model_document
from corral_server.gateway.management.names import metadata_name
from corral_server.gateway.management.policy import KEYS, NEVER, CreationPolicy
from corral_server.gateway.management.store import ModelRefused
from tests.gateway.test_keys import ALICE, BOB, bearer, key_file
from tests.support.gateway import MemoryDirectory, RunningGateway, entry, running_gateway
from tests.support.management import OPEN, MemoryModels, management, shown
from tests.support.waiting import auntil

NAME = metadata_name("llama3.2")
KEY = f"default/{NAME}"
WEIGHTS = PullingFile("cd" * 32, 1000, 300)
NOT_FOUND = "the registry registry.ollama.ai has no 'latest' of 'library/llama3.2': check name and tag (not found)"


def pulling(document: JsonObject) -> ModelEntry:
    """Return the entry that a watch shows first: nothing is known of the weights."""
    return shown(document, metadata=None, pulling=(), reconciled=False)


@asynccontextmanager
async def gateway_of(models: MemoryModels, policy: CreationPolicy = OPEN) -> AsyncIterator[RunningGateway]:
    async with running_gateway(models.directory, management=management(models, policy=policy)) as gateway:
        yield gateway


async def lines(gateway: RunningGateway, name: str = "llama3.2", **headers: str) -> list[dict[str, object]]:
    answer = await gateway.http.post("/api/pull", json={"model": name}, headers=headers)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


async def test_a_new_name_makes_a_model_and_its_pull_is_followed_to_success() -> None:
    models = MemoryModels(MemoryDirectory(), show=pulling)
    async with gateway_of(models) as gateway:
        answer = asyncio.create_task(lines(gateway))
        await auntil(lambda: (KEY, True) in models.directory.pulls, what="the pull is wanted")
        models.directory.change(KEY, pulling=(WEIGHTS,))
        models.directory.change(KEY, pulling=None, reconciled=True)
        assert not answer.done()
        models.directory.put(shown(models.documents[KEY]))
        said = await answer
        assert said[0] == {"status": "pulling manifest"}
        assert said[-1] == {"status": "success"}
        show = await gateway.http.post("/api/show", json={"model": "llama3.2"})
    assert show.status_code == 200
    assert models.documents[KEY] == {
        "apiVersion": "corral.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"namespace": "default", "name": NAME, "labels": {"corral.dev/created-by": "api"}},
        "spec": {"prefetch": False, "names": ["llama3.2:latest"], "source": "ollama://llama3.2"},
    }


async def test_success_waits_until_the_gateway_knows_the_model() -> None:
    models = MemoryModels(MemoryDirectory(), show=lambda _document: None)
    async with gateway_of(models) as gateway:
        answer = asyncio.create_task(lines(gateway))
        await auntil(lambda: KEY in models.documents)
        assert (await gateway.http.post("/api/show", json={"model": "llama3.2"})).status_code == 404
        assert not answer.done()
        models.directory.put(shown(models.documents[KEY]))
        assert (await answer)[-1] == {"status": "success"}


async def test_the_name_of_a_model_that_exists_makes_none() -> None:
    models = MemoryModels(MemoryDirectory.of(entry("llama3.2")))
    async with gateway_of(models) as gateway:
        assert (await lines(gateway))[-1] == {"status": "success"}
    assert models.log == []


async def test_two_clients_that_pull_one_name_make_one_model() -> None:
    models = MemoryModels(MemoryDirectory(), show=lambda _document: None)
    async with gateway_of(models) as one, gateway_of(models) as other:
        answers = [asyncio.create_task(lines(gateway)) for gateway in (one, one, other)]
        await auntil(lambda: KEY in models.documents)
        models.directory.put(shown(models.documents[KEY]))
        assert [(await answer)[-1] for answer in answers] == [{"status": "success"}] * 3
    assert models.log == [("create", KEY)]


async def test_a_name_without_weights_ends_with_ollamas_error_and_leaves_no_model() -> None:
    failed = f"model 'llama3.2' cannot be pulled: {NOT_FOUND}"
    models = MemoryModels(
        MemoryDirectory(), show=lambda document: shown(document, metadata=None, pulling=(), unavailable_reason=failed)
    )
    error = {"error": "pull model manifest: file does not exist"}
    async with gateway_of(models) as gateway:
        assert await lines(gateway) == [{"status": "pulling manifest"}, error]
        assert (models.documents, models.directory.by_key) == ({}, {})
        answer = await gateway.http.post("/api/pull", json={"model": "llama3.2", "stream": False})
    assert (answer.status_code, answer.json()) == (500, error)


async def test_a_first_pull_that_fails_otherwise_has_its_reason_and_leaves_no_model() -> None:
    models = MemoryModels(
        MemoryDirectory(),
        show=lambda document: shown(document, metadata=None, pulling=(), unavailable_reason="no route to host"),
    )
    async with gateway_of(models) as gateway:
        assert (await lines(gateway))[-1] == {"error": "no route to host"}
    assert models.documents == {}


async def test_the_error_of_a_withdrawn_model_names_no_next_attempt() -> None:
    problem = "model 'llama3.2' cannot be pulled: no route to the registry"
    reason = f"{problem} (next attempt in 5 s)"
    show = partial(shown, metadata=None, pulling=(), unavailable_reason=reason, pull_problem=problem)
    models = MemoryModels(MemoryDirectory(), show=show)
    async with gateway_of(models) as gateway:
        assert (await lines(gateway))[-1] == {"error": problem}
    assert models.documents == {}


async def test_a_pull_that_ends_before_the_first_look_at_it_shows_its_files() -> None:
    models = MemoryModels(MemoryDirectory(), show=pulling)
    async with gateway_of(models) as gateway:
        answer = asyncio.create_task(lines(gateway))
        await auntil(lambda: (KEY, True) in models.directory.pulls, what="the pull is wanted")
        models.directory.change(KEY, pulling=(WEIGHTS,))
        models.directory.put(shown(models.documents[KEY]))
        said = await answer
    assert said[1:-1] == [
        {"status": f"pulling {'cd' * 6}", "digest": f"sha256:{'cd' * 32}", "total": 1000, "completed": 1000},
        {"status": "verifying sha256 digest"},
        {"status": "writing manifest"},
    ]


async def test_an_earlier_pull_of_a_name_without_weights_is_cleaned_up_as_well() -> None:
    models = MemoryModels(MemoryDirectory(), show=pulling)
    async with gateway_of(models) as gateway:
        await models.create(model_document("llama3.2", "default", {"source": "ollama://llama3.2"}))
        models.directory.change(KEY, unavailable_reason=NOT_FOUND)
        assert (await lines(gateway))[-1] == {"error": "pull model manifest: file does not exist"}
    assert models.documents == {}


async def test_a_client_that_leaves_leaves_the_model_and_the_next_pull_continues() -> None:
    models = MemoryModels(MemoryDirectory(), show=pulling)
    async with gateway_of(models) as gateway:
        async with gateway.http.stream("POST", "/api/pull", json={"model": "llama3.2"}) as response:
            await anext(response.aiter_lines())
        await auntil(lambda: models.directory.pulls[-1:] == [(KEY, False)])
        models.directory.put(shown(models.documents[KEY]))
        assert (await lines(gateway))[-1] == {"status": "success"}
    assert models.log == [("create", KEY)]


async def test_a_model_that_never_appears_is_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "VISIBLE_TIMEOUT", 0.05)
    models = MemoryModels(MemoryDirectory(), show=lambda _document: None)
    async with gateway_of(models) as gateway:
        answer = await gateway.http.post("/api/pull", json={"model": "llama3.2"})
    assert answer.status_code == 500
    assert "check that the operator runs" in answer.json()["error"]
    assert models.documents == {}


@pytest.mark.parametrize(("create", "text"), [(NEVER, "models.create"), (KEYS, "needs an API key")])
async def test_a_policy_that_forbids_it_answers_403_with_what_to_do(create: str, text: str) -> None:
    models = MemoryModels(MemoryDirectory())
    async with gateway_of(models, CreationPolicy(create=create)) as gateway:
        answer = await gateway.http.post("/api/pull", json={"model": "llama3.2"})
    assert answer.status_code == 403
    assert text in answer.json()["error"]
    assert models.log == []


@pytest.mark.parametrize(
    ("name", "status"), [("169.254.169.254:80/x/y", 403), ("registry.example/x/y", 403), ("a_b:1/x/y", 400)]
)
async def test_hosts_that_no_pattern_allows_are_refused(name: str, status: int) -> None:
    models = MemoryModels(MemoryDirectory())
    async with gateway_of(models) as gateway:
        answer = await gateway.http.post("/api/pull", json={"model": name})
    assert answer.status_code == status, answer.text
    assert models.log == []


async def test_a_refusal_of_the_store_reaches_the_client() -> None:
    class Full(MemoryModels):
        async def create(self, resource: JsonObject) -> None:
            raise ModelRefused(403, "exceeded quota: models, requested: 1, used: 5, limited: 5")

    async with gateway_of(Full(MemoryDirectory())) as gateway:
        answer = await gateway.http.post("/api/pull", json={"model": "llama3.2"})
    assert answer.status_code == 403
    assert answer.json()["error"].startswith("exceeded quota")


async def pull_with(models: MemoryModels, key: str, name: str, keys: str) -> httpx.Response:
    managed = management(models, policy=CreationPolicy())
    async with running_gateway(models.directory, management=managed, keys_file=keys) as gateway:
        return await gateway.http.post("/api/pull", json={"model": name}, headers=bearer(key))


async def test_a_key_makes_models_in_its_namespace_and_finds_them_by_plain_names(tmp_path: Path) -> None:
    keys = key_file(tmp_path, alice={"namespaces": ["team-a"]}, bob={})
    models = MemoryModels(MemoryDirectory())
    assert (await pull_with(models, ALICE, "llama3.2", keys)).text.endswith('{"status":"success"}\n')
    assert (await pull_with(models, BOB, "qwen3", keys)).text.endswith('{"status":"success"}\n')
    assert models.log == [("create", f"team-a/{NAME}"), ("create", f"default/{metadata_name('qwen3')}")]


async def test_the_own_namespace_in_a_name_is_not_part_of_the_source(tmp_path: Path) -> None:
    models = MemoryModels(MemoryDirectory())
    keys = key_file(tmp_path, alice={"namespaces": ["team-a"]})
    assert (await pull_with(models, ALICE, "team-a/llama3.2", keys)).text.endswith('{"status":"success"}\n')
    assert models.spec(f"team-a/{NAME}")["source"] == "ollama://llama3.2"


async def test_a_key_makes_only_models_that_it_allows(tmp_path: Path) -> None:
    models = MemoryModels(MemoryDirectory())
    keys = key_file(tmp_path, alice={"models": ["qwen*"]})
    answer = await pull_with(models, ALICE, "llama3.2", keys)
    assert (answer.status_code, models.log) == (403, [])


async def test_a_name_in_another_namespace_is_refused(tmp_path: Path) -> None:
    models = MemoryModels(MemoryDirectory())
    models.put(model_document("x", "team-b", {"source": "ollama://x"}))
    answer = await pull_with(models, ALICE, "team-b/new", key_file(tmp_path, alice={}))
    assert answer.status_code == 403
    assert "namespace team-b" in answer.json()["error"]
