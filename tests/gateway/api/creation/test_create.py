"""``/api/create`` where Models are managed by the API."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import httpx
import pytest

from corral_core.base.json_fields import JsonObject
from corral_server.gateway.management.documents import model_document
from corral_server.gateway.management.names import metadata_name
from corral_server.gateway.management.policy import NEVER, CreationPolicy, Profile
from tests.support.gateway import MemoryDirectory, entry, running_gateway
from tests.support.management import OPEN, MemoryBlobs, MemoryModels, blob_digest, management, shown
from tests.support.waiting import auntil

KEY = f"default/{metadata_name('mario')}"
GGUF = b"GGUF weights"
DIGEST = blob_digest(GGUF)
BLOB = f"oci://registry.test/blobs@{DIGEST}"


def models_of(*names: str, **spec: object) -> MemoryModels:
    """Return a store with Models that the API has made."""
    models = MemoryModels(MemoryDirectory())
    for name in names:
        models.put(model_document(name, "default", {"source": f"ollama://{name}", **spec}))
    return models


async def create(models: MemoryModels, fields: JsonObject, blobs: MemoryBlobs | None = None) -> httpx.Response:
    async with running_gateway(models.directory, management=management(models, blobs)) as gateway:
        return await gateway.http.post("/api/create", json={"model": "mario", **fields})


def statuses(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line).get("status", line) for line in answer.text.splitlines()]


async def test_a_model_from_another_has_its_source_and_the_changes() -> None:
    models = models_of("llama3.2", parameters={"top_k": 5, "seed": 1}, system="You are Luigi.", keepAlive="1h")
    answer = await create(models, {"from": "llama3.2", "system": "You are Mario.", "parameters": {"top_k": 7}})
    assert statuses(answer)[-2:] == ["writing manifest", "success"]
    assert models.spec(KEY) == {
        "prefetch": False,
        "names": ["mario:latest"],
        "source": "ollama://llama3.2",
        "parameters": {"top_k": 7, "seed": 1},
        "system": "You are Mario.",
        "keepAlive": "1h",
    }


async def test_template_license_and_stop_are_taken() -> None:
    models = models_of("llama3.2")
    fields = {"template": "{{ .Prompt }}", "license": ["MIT", "other"], "parameters": {"stop": "END"}}
    await create(models, {"from": "llama3.2", **fields})
    spec = models.spec(KEY)
    assert (spec["template"], spec["license"], spec["parameters"]) == ("{{ .Prompt }}", "MIT\nother", {"stop": ["END"]})


async def test_messages_are_taken_and_shown() -> None:
    models = models_of("llama3.2")
    messages = [{"role": "user", "content": "2 + 2"}, {"role": "assistant", "content": "4"}]
    async with running_gateway(models.directory, management=management(models)) as gateway:
        body = {"model": "mario", "from": "llama3.2", "messages": messages}
        assert (await gateway.http.post("/api/create", json=body)).status_code == 200
        show = (await gateway.http.post("/api/show", json={"model": "mario"})).json()
    assert models.spec(KEY)["messages"] == messages
    assert show["messages"] == messages
    assert "MESSAGE assistant 4" in show["modelfile"]


async def test_a_name_that_no_model_has_is_pulled_first() -> None:
    models = MemoryModels(
        MemoryDirectory(), show=lambda document: shown(document, metadata=None, pulling=(), reconciled=False)
    )
    async with running_gateway(models.directory, management=management(models)) as gateway:
        body = {"model": "mario", "from": "hf.co/org/repo:Q4_K_M"}
        answer = asyncio.create_task(gateway.http.post("/api/create", json=body))
        await auntil(lambda: (KEY, True) in models.directory.pulls)
        assert not answer.done()
        models.directory.put(shown(models.documents[KEY]))
        assert statuses(await answer)[-1] == "success"
    assert models.spec(KEY)["source"] == "hf://org/repo:Q4_K_M"


async def test_any_allowed_source_can_be_named_as_a_uri() -> None:
    models = MemoryModels(MemoryDirectory())
    await create(models, {"from": "hf://org/repo/file.gguf"})
    assert models.spec(KEY)["source"] == "hf://org/repo/file.gguf"


@pytest.mark.parametrize("source", ["file:///etc/x.gguf", "https://10.0.0.1/x.gguf", "10.0.0.1:80/x/y"])
async def test_other_sources_are_refused_with_what_to_do(source: str) -> None:
    models = MemoryModels(MemoryDirectory())
    answer = await create(models, {"from": source})
    assert answer.status_code == 403
    assert "CORRAL_MODELS_SOURCES" in answer.json()["error"]
    assert models.log == []


async def test_an_uploaded_file_becomes_the_source() -> None:
    models = MemoryModels(MemoryDirectory())
    answer = await create(models, {"files": {"model.gguf": DIGEST}}, MemoryBlobs({DIGEST: GGUF}))
    assert statuses(answer)[:2] == ["parsing GGUF", f"using existing layer {DIGEST}"]
    assert models.spec(KEY)["source"] == BLOB


async def test_an_uploaded_projector_belongs_to_the_weights() -> None:
    models, other = MemoryModels(MemoryDirectory()), blob_digest(b"projector")
    files = {"mmproj-model-f16.gguf": other, "model.gguf": DIGEST}
    await create(models, {"files": files}, MemoryBlobs({DIGEST: GGUF, other: b"projector"}))
    spec = models.spec(KEY)
    assert (spec["source"], spec["projector"]) == (BLOB, f"oci://registry.test/blobs@{other}")


async def test_a_model_with_an_adapter_has_the_adapters_name() -> None:
    models = models_of("llama3.2")
    blobs = MemoryBlobs({DIGEST: GGUF})
    await create(models, {"from": "llama3.2", "adapters": {"lora.gguf": DIGEST}}, blobs)
    assert models.spec(KEY) == {
        "prefetch": False,
        "source": "ollama://llama3.2",
        "adapters": [{"name": "mario:latest", "source": BLOB}],
    }


async def test_a_model_from_the_name_of_an_adapter_keeps_the_adapter() -> None:
    models = models_of("llama3.2")
    models.put(
        model_document("luigi", "default", {"source": "ollama://x", "adapters": [{"name": "luigi", "source": BLOB}]})
    )
    await create(models, {"from": "luigi"})
    assert models.spec(KEY)["adapters"] == [{"name": "mario:latest", "source": BLOB}]


@pytest.mark.parametrize(
    ("fields", "status", "text"),
    [
        ({}, 400, "neither 'from' or 'files' was specified"),
        ({"model": "a//b", "from": "llama3.2"}, 400, "invalid model name"),
        ({"from": "a//b"}, 400, "invalid model name"),
        ({"files": {}}, 400, "unknown type"),
        ({"files": {"/etc/x.gguf": DIGEST}}, 400, "file path must be relative"),
        ({"files": {"../x.gguf": DIGEST}}, 400, "file path must be relative"),
        ({"files": {"x.gguf": ""}}, 400, "invalid digest format"),
        ({"files": {"x.gguf": "sha256:x"}}, 400, "invalid digest for x.gguf: invalid digest format"),
        ({"files": {"x.gguf": DIGEST, "y.safetensors": DIGEST}}, 400, "mixed model file types"),
        ({"files": {"x.gguf": "sha256:" + "0" * 64}}, 400, "not found: upload the file"),
        ({"files": {"x.safetensors": DIGEST}}, 400, "convert_hf_to_gguf.py"),
        ({"files": {"a.gguf": DIGEST, "b.gguf": DIGEST}}, 400, "llama-gguf-split"),
        ({"from": "llama3.2", "adapters": {"a": DIGEST, "b": DIGEST}}, 400, "only one adapter is currently supported"),
        ({"from": "llama3.2", "quantize": "q4_K_M"}, 400, "quantize GGUF models with llama.cpp tools"),
        ({"from": "llama3.2", "draft_files": {"x.gguf": DIGEST}}, 400, "draft models"),
        ({"from": "llama3.2", "remote_host": "ollama.com"}, 400, "remote models"),
        ({"from": "llama3.2", "parameters": {"top_k": "x"}}, 400, "spec.parameters.top_k"),
        ({"from": "llama3.2", "messages": [{"role": "narrator", "content": "x"}]}, 400, "spec.messages[0].role"),
        ({"from": "llama3.2", "license": 3}, 400, "a string or a list of strings: got float64"),
        ({"from": "llama3.2", "stream": "no"}, 400, "CreateRequest.stream of type bool"),
        ({"from": "llama3.2", "files": []}, 400, "CreateRequest.files of type map[string]string"),
        ({"from": "llama3.2", "messages": [{"role": "user", "content": "a", "images": ["AA=="]}]}, 400, "text here"),
    ],
)
async def test_refusals(fields: JsonObject, status: int, text: str) -> None:
    models = models_of("llama3.2")
    answer = await create(models, fields, MemoryBlobs({DIGEST: GGUF}))
    assert answer.status_code == status, answer.text
    assert text in answer.json()["error"]
    assert models.log == []


async def test_without_a_place_for_uploads_files_are_refused_with_what_to_do() -> None:
    answer = await create(MemoryModels(MemoryDirectory()), {"files": {"x.gguf": DIGEST}})
    assert answer.status_code == 501
    assert "models.blobs" in answer.json()["error"]


async def test_fields_without_an_effect_are_named_in_the_progress() -> None:
    answer = await create(models_of("llama3.2"), {"from": "llama3.2", "renderer": "qwen3-coder", "requires": "0.14.0"})
    assert [line.partition(":")[0] for line in statuses(answer)[:2]] == ["ignoring renderer", "ignoring requires"]


async def test_a_create_over_a_name_replaces_the_model() -> None:
    models = models_of("llama3.2", "mario")
    answer = await create(models, {"from": "llama3.2"})
    assert statuses(answer)[-1] == "success"
    assert models.log == [("update", KEY)]
    assert models.spec(KEY)["source"] == "ollama://llama3.2"


async def test_a_replacement_that_cannot_be_pulled_restores_the_version_before() -> None:
    models = models_of("mario")
    before = models.documents[KEY]
    models.show = lambda document: shown(document, metadata=None, pulling=(), unavailable_reason="no route to host")
    answer = await create(models, {"from": "hf://org/repo"})
    assert json.loads(answer.text.splitlines()[-1]) == {"error": "no route to host"}
    assert models.documents[KEY] == before


async def test_the_failure_of_a_newer_version_is_reported_while_the_one_before_is_served() -> None:
    models = models_of("mario")
    served = models.directory.by_key[KEY]

    def held_back(document: JsonObject) -> object:
        latest = shown(document).model.spec
        return shown(
            models.documents[KEY], model=served.model, pulling=(), latest=latest, latest_problem="no such repository"
        )

    models.show = held_back  # type: ignore[assignment]  # an entry
    answer = await create(models, {"from": "hf://org/repo"})
    assert json.loads(answer.text.splitlines()[-1]) == {"error": "no such repository"}


async def test_a_client_that_leaves_gets_no_model() -> None:
    models = MemoryModels(MemoryDirectory(), show=lambda document: shown(document, metadata=None, pulling=()))
    async with running_gateway(models.directory, management=management(models)) as gateway:
        body = {"model": "mario", "from": "hf://org/repo", "system": "x"}
        async with gateway.http.stream("POST", "/api/create", json=body) as response:
            await anext(response.aiter_lines())
        await auntil(lambda: models.log == [("create", KEY), ("delete", KEY)])


async def test_a_model_that_the_api_did_not_make_is_not_replaced() -> None:
    models = models_of("llama3.2")
    document = model_document("mario", "default", {"source": "ollama://x"})
    models.put({**document, "metadata": {"namespace": "default", "name": "mario"}})
    answer = await create(models, {"from": "llama3.2"})
    assert answer.status_code == 403
    assert "kubectl -n default edit or delete model mario" in answer.json()["error"]
    assert models.log == []


async def test_without_a_stream_the_response_is_one_object() -> None:
    answer = await create(models_of("llama3.2"), {"from": "llama3.2", "stream": False})
    assert answer.json() == {"status": "success"}


async def test_a_policy_that_forbids_it_answers_403() -> None:
    models = models_of("llama3.2")
    async with running_gateway(
        models.directory, management=management(models, policy=CreationPolicy(create=NEVER))
    ) as gateway:
        answer = await gateway.http.post("/api/create", json={"model": "mario", "from": "llama3.2"})
    assert answer.status_code == 403
    assert "models.create" in answer.json()["error"]


async def test_a_profile_sets_defaults_that_the_request_overrides() -> None:
    models = MemoryModels(MemoryDirectory())
    profile = Profile(("hf://*",), {"keepAlive": "1h", "system": "default"})
    managed = management(models, policy=replace(OPEN, profiles=(profile,)))
    async with running_gateway(models.directory, management=managed) as gateway:
        body = {"model": "mario", "from": "hf://org/repo", "system": "own"}
        assert (await gateway.http.post("/api/create", json=body)).status_code == 200
    assert (models.spec(KEY)["keepAlive"], models.spec(KEY)["system"]) == ("1h", "own")


async def test_a_model_of_another_namespace_gives_its_weights_and_no_pod_settings() -> None:
    models = MemoryModels(MemoryDirectory())
    models.put(
        model_document(
            "shared", "team-b", {"source": "ollama://x", "pod": {"priorityClassName": "high"}, "system": "You help."}
        )
    )
    await create(models, {"from": "shared"})
    assert models.spec(KEY) == {
        "prefetch": False,
        "names": ["mario:latest"],
        "source": "ollama://x",
        "system": "You help.",
    }


async def test_weights_that_another_namespace_has_a_secret_for_are_refused() -> None:
    models = MemoryModels(MemoryDirectory())
    spec = {"source": "hf://org/private", "sourceSecretRef": {"name": "token"}}
    models.put(model_document("private", "team-b", spec))
    answer = await create(models, {"from": "private"})
    assert answer.status_code == 400
    assert "a Secret of namespace team-b" in answer.json()["error"]


async def test_a_model_that_a_file_defines_can_be_the_base() -> None:
    models = MemoryModels(MemoryDirectory.of(entry("tiny")))
    await create(models, {"from": "tiny"})
    assert models.spec(KEY)["source"] == "file:///weights/tiny.gguf"
