"""``/api/copy`` and ``/api/delete`` where Models are managed by the API."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx

from corral_server.gateway.management.documents import model_document
from corral_server.gateway.management.names import metadata_name
from corral_server.gateway.management.policy import NEVER, CreationPolicy
from tests.gateway.test_keys import ALICE, bearer, key_file
from tests.support.gateway import MemoryDirectory, running_gateway
from tests.support.management import OPEN, MemoryModels, management

LLAMA, COPY = (f"default/{metadata_name(name)}" for name in ("llama3.2", "copy"))


def models_of(*names: str, namespace: str = "default") -> MemoryModels:
    models = MemoryModels(MemoryDirectory())
    for name in names:
        models.put(model_document(name, namespace, {"source": f"ollama://{name}", "system": "You help."}))
    return models


def by_hand(models: MemoryModels, name: str) -> None:
    document = model_document(name, "default", {"source": "ollama://x"})
    models.put({**document, "metadata": {"namespace": "default", "name": name}})


async def ask(
    models: MemoryModels, method: str, path: str, *, policy: CreationPolicy = OPEN, **fields: str
) -> httpx.Response:
    async with running_gateway(models.directory, management=management(models, policy=policy)) as gateway:
        return await gateway.http.request(method, path, json=fields)


async def test_a_copy_is_a_model_of_its_own() -> None:
    models = models_of("llama3.2")
    answer = await ask(models, "POST", "/api/copy", source="llama3.2", destination="copy")
    assert (answer.status_code, answer.content) == (200, b"")
    assert models.spec(COPY) == {**models.spec(LLAMA), "names": ["copy:latest"]}


async def test_a_copy_over_a_name_replaces_it() -> None:
    models = models_of("llama3.2", "copy")
    assert (await ask(models, "POST", "/api/copy", source="llama3.2", destination="copy")).status_code == 200
    assert models.log == [("update", COPY)]


async def test_a_copy_of_a_name_to_itself_changes_nothing() -> None:
    models = models_of("llama3.2")
    assert (await ask(models, "POST", "/api/copy", source="llama3.2", destination="LLAMA3.2:latest")).status_code == 200
    assert models.log == []


async def test_a_copy_of_an_unknown_model_is_not_found() -> None:
    answer = await ask(models_of(), "POST", "/api/copy", source="nope", destination="copy")
    assert (answer.status_code, answer.json()) == (404, {"error": 'model "nope" not found'})


async def test_a_model_that_a_manifest_defines_can_be_copied() -> None:
    models = models_of()
    by_hand(models, "mine")
    assert (await ask(models, "POST", "/api/copy", source="mine", destination="copy")).status_code == 200
    assert models.spec(COPY)["source"] == "ollama://x"


async def test_a_deleted_model_is_gone_when_the_response_comes() -> None:
    models = models_of("llama3.2")
    answer = await ask(models, "DELETE", "/api/delete", model="llama3.2")
    assert (answer.status_code, answer.content) == (200, b"")
    assert models.documents == {}
    assert (await ask(models, "DELETE", "/api/delete", model="llama3.2")).status_code == 404


async def test_a_model_that_a_manifest_defines_is_not_deleted() -> None:
    models = models_of()
    by_hand(models, "mine")
    answer = await ask(models, "DELETE", "/api/delete", name="mine")
    assert answer.status_code == 403
    assert "kubectl -n default edit or delete model mine" in answer.json()["error"]


async def test_a_model_that_has_no_document_in_the_store_is_not_deleted() -> None:
    models = models_of("llama3.2")
    models.documents.clear()
    assert (await ask(models, "DELETE", "/api/delete", name="llama3.2")).status_code == 403


async def test_all_models_can_be_deleted_where_the_policy_says_so() -> None:
    models = models_of()
    by_hand(models, "mine")
    models.documents["default/mine"] = {
        **models.documents["default/mine"],
        "spec": {"source": "ollama://x", "names": ["mine"]},
    }
    assert (
        await ask(models, "DELETE", "/api/delete", name="mine", policy=replace(OPEN, manage_all=True))
    ).status_code == 200


async def test_a_model_with_several_names_is_not_deleted_by_one_of_them() -> None:
    models = models_of()
    models.put(model_document("a", "default", {"source": "ollama://x", "names": ["a", "b"]}))
    answer = await ask(models, "DELETE", "/api/delete", name="a")
    assert answer.status_code == 403
    assert "other names" in answer.json()["error"]


async def test_nothing_is_deleted_where_the_api_changes_nothing() -> None:
    models = models_of("llama3.2")
    assert (
        await ask(models, "DELETE", "/api/delete", name="llama3.2", policy=CreationPolicy(create=NEVER))
    ).status_code == 403


async def test_a_client_without_a_key_changes_no_model_of_another_namespace() -> None:
    models = models_of("llama3.2")
    answer = await ask(models, "DELETE", "/api/delete", name="llama3.2", policy=replace(OPEN, namespace="models"))
    assert (answer.status_code, models.log) == (403, [])


async def test_a_key_deletes_no_model_of_a_shared_namespace(tmp_path: Path) -> None:
    models = models_of("llama3.2", namespace="base")
    keys = key_file(tmp_path, alice={"namespaces": ["team-a", "base"]})
    managed = management(models, policy=CreationPolicy())
    async with running_gateway(models.directory, management=managed, keys_file=keys) as gateway:
        answer = await gateway.http.request("DELETE", "/api/delete", json={"model": "llama3.2"}, headers=bearer(ALICE))
    assert (answer.status_code, models.log) == (403, [])
