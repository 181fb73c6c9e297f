from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx
import pytest

from corral_server.gateway.directory.directory import ModelEntry
from tests.core.contracts.test_packed_defaults import BROUGHT
from tests.support.fake_upstream import Call, fake_upstream, reply
from tests.support.gateway import METADATA, MemoryDirectory, entry, gateway_with_upstream, run, running_gateway

NO_CLOUD = b'{"error":"ollama cloud is disabled: %b"}'
ACTIVITY = {
    "in_flight": 0,
    "waiting": 0,
    "slots": 4,
    "loaded": True,
    "draining": False,
    "keep_alive_s": 300,
    "idle_s": 1.0,
    "expires_in_s": 299.0,
    "size_bytes": 200,
    "vram_bytes": 100,
    "context_length": 2048,
    "progress": 1.0,
}


def ask(
    method: str, path: str, *entries: ModelEntry, ready: bool = True, body: object = None, agent: str = "test"
) -> httpx.Response:
    """One request to a gateway that has just these Models."""
    answers: list[httpx.Response] = []

    async def scenario() -> None:
        directory = MemoryDirectory.of(*entries)
        directory.ready = ready
        async with running_gateway(directory) as gateway:
            answers.append(await gateway.http.request(method, path, json=body, headers={"user-agent": agent}))

    run(scenario())
    return answers[0]


@pytest.mark.parametrize(
    ("method", "path", "status", "body"),
    [
        ("GET", "/", 200, b"Ollama is running"),
        ("HEAD", "/", 200, b""),
        ("GET", "/api/tags/", 301, b'<a href="/api/tags">Moved Permanently</a>.\n\n'),
        ("POST", "/api/chat/", 307, b""),
        ("GET", "/api/chat/", 404, b"404 page not found"),
        ("GET", "/api//tags?a=b&c", 307, b'<a href="/api/tags?a=b&amp;c">Temporary Redirect</a>.\n\n'),
        ("POST", "/v1//chat/completions", 307, b""),
        ("GET", "/nowhere", 404, b"404 page not found"),
        ("GET", "/v1/messages/count_tokens", 405, b"405 method not allowed"),
        ("POST", "/api/rerank", 404, b"404 page not found"),
        ("GET", "/api/chat", 405, b"405 method not allowed"),
        ("OPTIONS", "/api/chat", 405, b"405 method not allowed"),
        ("POST", "/api/version", 405, b"405 method not allowed"),
        ("GET", "/api/status", 200, b'{"cloud":{"disabled":true,"source":"env"}}'),
        ("GET", "/api/tags", 200, b'{"models":[]}'),
        ("GET", "/api/ps", 200, b'{"models":[]}'),
        ("GET", "/v1/models", 200, b'{"object":"list","data":null}'),
        ("GET", "/api/experimental/model-recommendations", 200, b'{"recommendations":[]}'),
        ("POST", "/api/me", 503, b'{"error":"account unavailable"}'),
        ("POST", "/api/signout", 500, b'{"error":"there was an error signing out"}'),
        ("DELETE", "/api/user/keys/abc", 500, b'{"error":"there was an error signing out"}'),
        ("POST", "/api/experimental/web_search", 403, NO_CLOUD % b"web search is unavailable"),
        ("POST", "/api/experimental/web_fetch", 403, NO_CLOUD % b"web fetch is unavailable"),
        ("HEAD", "/api/version", 200, b""),
        ("HEAD", "/api/tags", 200, b""),
        ("POST", "/v1/images/generations", 404, b"404 page not found"),
        ("POST", "/v1/responses/compact", 404, b"404 page not found"),
    ],
)
def test_responses_without_models(method: str, path: str, status: int, body: bytes) -> None:
    answer = ask(method, path)
    assert (answer.status_code, answer.content) == (status, body)


@pytest.mark.parametrize(
    ("path", "allowed"), [("/api/version", "HEAD, GET"), ("/api/chat", "POST"), ("/api/blobs/x", "HEAD, POST")]
)
def test_a_method_not_allowed_gets_the_allow_header(path: str, allowed: str) -> None:
    answer = ask("PATCH", path)
    assert (answer.status_code, answer.headers["allow"], answer.headers["content-type"]) == (405, allowed, "text/plain")


def test_a_hostile_path_cannot_add_a_header() -> None:
    answer = ask("GET", "/v1/models/a%0d%0ax-evil:%201/")
    assert answer.status_code == 400
    assert "x-evil" not in answer.headers


def test_head_of_the_root_has_the_content_length() -> None:
    assert ask("HEAD", "/").headers["content-length"] == "17"


def test_the_version_is_a_recent_release() -> None:
    """Some editors demand 0.6.4."""
    version = ask("GET", "/api/version").json()["version"]
    assert tuple(map(int, version.split("."))) >= (0, 6, 4)


def test_audio_is_rejected_in_openais_format() -> None:
    answer = ask("POST", "/v1/audio/transcriptions", body={})
    assert answer.status_code == 501
    assert answer.json()["error"]["type"] == "api_error"


def test_tags_list_unloaded_models_with_their_metadata_the_newest_first() -> None:
    old, new = entry("tiny"), entry("Big:1b", modified=1_760_000_000.0, metadata=None)
    models = ask("GET", "/api/tags", old, new).json()["models"]
    assert [model["name"] for model in models] == ["big:1b", "tiny:latest"]
    assert models[0]["size"] == 0
    assert models[1] == {
        "name": "tiny:latest",
        "model": "tiny:latest",
        "modified_at": "2025-06-15T15:06:40.250000000Z",
        "size": 98_000_000,
        "digest": "ab" * 32,
        "details": {
            "parent_model": "",
            "format": "gguf",
            "family": "llama",
            "families": ["llama"],
            "parameter_size": "135M",
            "quantization_level": "Q4_1",
            "context_length": 2048,
            "embedding_length": 576,
        },
        "capabilities": ["completion"],
    }


@pytest.mark.parametrize("field", ["model", "name", "MODEL"])
def test_show_describes_an_unloaded_model(field: str) -> None:
    shown = ask("POST", "/api/show", entry("tiny"), body={field: "TINY:Latest"}).json()
    assert shown["model_info"] == {
        "general.architecture": "llama",
        "general.parameter_count": 134_515_008,
        "llama.context_length": 2048,
        "llama.embedding_length": 576,
        "tokenizer.ggml.tokens": None,
    }
    assert shown["template"] == "{{ messages }}"
    assert shown["capabilities"] == ["completion"]
    assert shown["modelfile"].startswith("FROM file:///weights/tiny.gguf\n")


def test_show_without_metadata_has_an_empty_model_info() -> None:
    shown = ask("POST", "/api/show", entry("tiny", metadata=None), body={"model": "tiny"}).json()
    assert shown["model_info"] == {}


def test_show_lists_the_parameters_of_the_model() -> None:
    value = entry("tiny")
    spec = value.model.spec.model_copy(update={"parameters": {"stop": ["<a>", '"'], "temperature": 0.5}})
    shown = ask("POST", "/api/show", replace(value, model=replace(value.model, spec=spec)), body={"model": "tiny"})
    assert shown.json()["parameters"].split("\n") == [
        'stop                           "<a>"',
        'stop                           "\\""',
        "temperature                    0.5",
    ]


def test_show_returns_the_requested_name_to_copilot() -> None:
    shown = ask("POST", "/api/show", entry("tiny"), body={"model": "tiny"}, agent="GitHubCopilotChat/0.1").json()
    assert shown["model_info"]["general.basename"] == "tiny"


def test_show_has_the_license_of_the_model() -> None:
    value = entry("tiny")
    spec = value.model.spec.model_copy(update={"license": "Apache-2.0"})
    shown = ask(
        "POST", "/api/show", replace(value, model=replace(value.model, spec=spec)), body={"model": "tiny"}
    ).json()
    assert shown["license"] == "Apache-2.0"
    assert "LICENSE Apache-2.0" in shown["modelfile"].splitlines()


def test_show_and_tags_have_what_the_source_brings() -> None:
    value = replace(entry("tiny"), defaults=BROUGHT)
    shown = ask("POST", "/api/show", value, body={"model": "tiny"}).json()
    assert (shown["template"], shown["system"], shown["license"]) == ("{{ .Prompt }} é", "Be brief.", "MIT\nApache-2.0")
    assert shown["messages"] == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    inserting = replace(value, defaults=replace(BROUGHT, template="{{ .Suffix }}"))
    assert ask("GET", "/api/tags", inserting).json()["models"][0]["capabilities"] == ["completion", "insert"]


def test_show_returns_the_system_message_of_the_request() -> None:
    shown = ask("POST", "/api/show", entry("tiny"), body={"model": "tiny", "system": "Be brief."}).json()
    assert shown["system"] == "Be brief."
    assert "SYSTEM Be brief.\n" in shown["modelfile"]


def test_show_has_the_keys_of_the_projector() -> None:
    metadata = replace(METADATA, families=("llama", "clip"), projector_info={"clip.projector_type": "mlp"})
    shown = ask("POST", "/api/show", replace(entry("tiny"), metadata=metadata), body={"model": "tiny"}).json()
    assert shown["projector_info"] == {"clip.projector_type": "mlp"}
    assert shown["details"]["families"] == ["llama", "clip"]


def test_fields_that_show_omits() -> None:
    body = {"model": "tiny", "verbose": True, "template": "ignored", "options": {}}
    shown = ask("POST", "/api/show", entry("tiny"), body=body).json()
    assert not shown.keys() & {"license", "messages", "projector_info", "requires"}
    assert shown["model_info"]["tokenizer.ggml.tokens"] is None
    assert shown["template"] == "{{ messages }}"


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "model is required"),
        ({"model": "nope"}, 404, "model 'nope:latest' not found"),
        ({"model": "nope:1b"}, 404, "model 'nope:1b' not found"),
        ({"model": "a//b"}, 400, "invalid model name"),
    ],
)
def test_show_of_an_invalid_or_unknown_name(body: object, status: int, text: str) -> None:
    answer = ask("POST", "/api/show", entry("tiny"), body=body)
    assert (answer.status_code, answer.json()) == (status, {"error": text})


def test_openai_lists_models_and_repeats_the_requested_id() -> None:
    value = entry("tiny")
    listed = ask("GET", "/v1/models", value).json()["data"]
    assert listed == [{"id": "tiny:latest", "object": "model", "created": 1_750_000_000, "owned_by": "library"}]
    assert ask("GET", "/v1/models/TINY", value).json()["id"] == "TINY"
    unknown = ask("GET", "/v1/models/nope", value)
    assert unknown.status_code == 404
    assert unknown.json()["error"]["type"] == "not_found_error"


@pytest.mark.parametrize("name", ["nope:cloud", "nope:1b-CLOUD"])
@pytest.mark.parametrize(("path", "what"), [("/api/show", b"model details are"), ("/api/chat", b"model is")])
def test_an_unknown_name_of_the_cloud_gets_ollamas_403(name: str, path: str, what: bytes) -> None:
    answer = ask("POST", path, body={"model": name})
    assert (answer.status_code, answer.content) == (403, NO_CLOUD % (b"remote " + what + b" unavailable"))


def test_a_model_may_have_a_name_of_the_cloud() -> None:
    assert ask("POST", "/api/show", entry("nope:cloud"), body={"model": "nope:cloud"}).status_code == 200


@pytest.mark.parametrize("name", ["nope:local:cloud", "nope:cloud:local", "nope:1b-cloud:local"])
def test_a_name_with_two_sources_gets_ollamas_text(name: str) -> None:
    answer = ask("POST", "/api/show", body={"model": name})
    assert (answer.status_code, answer.json()) == (400, {"error": f'use either :local or :cloud, not both: "{name}"'})


def test_an_unknown_name_gets_503_before_the_models_are_listed() -> None:
    assert ask("POST", "/api/chat", ready=False, body={"model": "tiny"}).status_code == 503
    assert ask("GET", "/readyz", ready=False).status_code == 503
    assert ask("GET", "/readyz").status_code == 200


async def test_ps_omits_runners_that_are_loading_or_do_not_respond() -> None:
    async def silent(call: Call) -> None:
        await call.wait_closed()

    loading = reply(200, json.dumps({**ACTIVITY, "loaded": False}).encode())
    forever = reply(200, json.dumps({**ACTIVITY, "keep_alive_s": -1, "expires_in_s": None}).encode())
    async with (
        fake_upstream(reply(200, json.dumps(ACTIVITY).encode())) as warm,
        fake_upstream(loading) as cold,
        fake_upstream(silent) as mute,
        fake_upstream(forever) as pinned,
    ):
        directory = MemoryDirectory.of(
            entry("warm", warm.port), entry("cold", cold.port), entry("mute", mute.port), entry("pin", pinned.port)
        )
        async with running_gateway(directory) as gateway:
            now = time.time()
            models = (await gateway.http.get("/api/ps")).json()["models"]
    assert [model["name"] for model in models] == ["pin:latest", "warm:latest"]
    assert models[0]["expires_at"] > "2300"
    assert datetime.fromisoformat(models[1]["expires_at"]).timestamp() == pytest.approx(now + 299, abs=5)
    assert (models[1]["size"], models[1]["size_vram"], models[1]["context_length"]) == (200, 100, 2048)
    assert "context_length" not in models[1]["details"]


@pytest.mark.parametrize(("layers", "vram"), [(5, 200), (4, 100)], ids=["all layers on GPUs", "some in host memory"])
async def test_ps_counts_the_buffers_in_host_memory_as_on_the_gpu_if_all_layers_are(layers: int, vram: int) -> None:
    offload = {"layers": layers, "total_layers": 5, "devices": [], "reason": "" if layers == 5 else "no room"}
    status = json.dumps({**ACTIVITY, "offload": offload}).encode()
    async with (
        fake_upstream(reply(200, status)) as runner,
        running_gateway(MemoryDirectory.of(entry("warm", runner.port))) as gateway,
    ):
        (model,) = (await gateway.http.get("/api/ps")).json()["models"]
    assert (model["size"], model["size_vram"]) == (200, vram)


INVALID_STATUSES = {
    "deep": b"[" * 20_000,
    "deep objects": b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
    "far future": json.dumps({**ACTIVITY, "expires_in_s": 1e300}).encode(),
    "not a number": json.dumps({**ACTIVITY, "expires_in_s": math.nan}).encode(),
    "infinite": json.dumps({**ACTIVITY, "keep_alive_s": math.inf}).encode(),
    "overflow": json.dumps(ACTIVITY).encode().replace(b'"in_flight": 0', b'"in_flight": 1e999'),
    "long integer": json.dumps({**ACTIVITY, "size_bytes": 10**400}).encode(),
    "negative": json.dumps({**ACTIVITY, "size_bytes": -1}).encode(),
    "wrong type": json.dumps({**ACTIVITY, "vram_bytes": "all"}).encode(),
    "list": b"[]",
    "empty": b"",
    "huge": b" " * (1 << 20) + json.dumps(ACTIVITY).encode(),
}


@pytest.mark.parametrize("body", INVALID_STATUSES.values(), ids=INVALID_STATUSES.keys())
async def test_ps_omits_a_runner_with_an_invalid_status_and_lists_the_others(body: bytes) -> None:
    async with fake_upstream(reply(200, json.dumps(ACTIVITY).encode())) as good, fake_upstream(reply(200, body)) as bad:
        directory = MemoryDirectory.of(entry("good", good.port), entry("bad", bad.port))
        async with running_gateway(directory) as gateway:
            response = await gateway.http.get("/api/ps")
    assert response.status_code == 200
    assert [model["name"] for model in response.json()["models"]] == ["good:latest"]


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/api/generate", {"keep_alive": 0}, {"response": ""}),
        ("/api/generate", {"prompt": "", "keep_alive": "0s"}, {"response": ""}),
        ("/api/chat", {"messages": [], "keep_alive": 0.0}, {"message": {"role": "assistant", "content": ""}}),
    ],
)
async def test_unloading_an_unloaded_model_succeeds_without_demand(
    path: str, body: dict[str, object], said: dict[str, object]
) -> None:
    directory = MemoryDirectory.of(entry("tiny"))
    async with running_gateway(directory) as gateway:
        answer = (await gateway.http.post(path, json={"model": "Tiny", **body})).json()
    answer.pop("created_at")
    assert answer == {"model": "Tiny", **said, "done": True, "done_reason": "unload"}
    assert directory.demands == []


async def test_unloading_a_busy_model_does_not_wait_for_a_slot() -> None:
    async with gateway_with_upstream(slots=0) as (up, gateway):
        answer = await gateway.http.post("/api/generate", json={"model": "tiny", "keep_alive": 0})
        assert answer.json()["done_reason"] == "unload"
        assert gateway.pending == 0
    assert json.loads(up.calls[0].body) == {"model": "tiny", "keep_alive": 0}


def test_an_invalid_keep_alive_is_rejected_without_demand() -> None:
    answer = ask("POST", "/api/generate", entry("tiny"), body={"model": "tiny", "keep_alive": "10"})
    assert (answer.status_code, answer.json()) == (400, {"error": 'time: missing unit in duration "10"'})


def test_show_omits_the_name_in_the_weights() -> None:
    metadata = replace(METADATA, info={**METADATA.info, "general.name": "Tiny"})
    info = ask("POST", "/api/show", entry("tiny", metadata=metadata), body={"model": "tiny"}).json()["model_info"]
    assert "general.name" not in info


def test_metadata_without_a_family_is_shown() -> None:
    shown = ask("POST", "/api/show", entry("tiny", metadata=replace(METADATA, info={})), body={"model": "tiny"}).json()
    assert shown["details"]["family"] == "llama"


async def test_responses_of_the_gateway_have_a_date() -> None:
    async with running_gateway(MemoryDirectory.of(entry("tiny"))) as gateway:
        answer = await gateway.http.get("/api/tags")
    made = parsedate_to_datetime(answer.headers["date"])
    assert abs(datetime.now(UTC) - made) < timedelta(seconds=60)
