"""Every snippet of docs/clients/ and every ``curl`` of docs/faq.md, run as it is on the page.

The blocks of a page are one program, as a reader enters them. Only the address is replaced. The server sends heartbeats
after a tenth of a second, so that every cold start has some.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
import yaml

from corral_server.gateway.proxy.heartbeat import COMMENT
from tests.clients import node_packages
from tests.clients.served_models import SYSTEM
from tests.docs.snippets import DOCS, SHELL, blocks, script, shell_commands
from tests.local.served import START, Served, model_file, serving
from tests.support import minilm

pytestmark = pytest.mark.process

ADDRESS = "http://127.0.0.1:11434"
CHATS, EMBEDS = "smollm2:135m", "all-minilm"
QUESTION = "What is the capital of France?"
FAQ = DOCS / "faq.md"
PAGES = DOCS / "clients"
CURL_BLOCKS = [
    block
    for page in (FAQ, *sorted(PAGES.glob("*.md")))
    for block in blocks(page, language=SHELL)
    if {command.words[0] for command in shell_commands(block)} == {"curl"}
]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("snippets")
    weights = minilm.write_gguf(folder / "minilm.gguf").as_uri()
    model_file(folder, "smollm2", names=[CHATS], system=SYSTEM, parameters={"temperature": 0, "num_predict": 40})
    model_file(folder, "embeds", names=[EMBEDS], source=weights, contextLength=256, parallel=1)
    with serving(folder, folder, environment={"CORRAL_HEARTBEAT": "100ms"}) as served:
        yield served


@pytest.fixture
def cold(models: Served) -> Served:
    """The server, with a Model for chats that is not loaded."""
    models.client.generate(CHATS, keep_alive=0)
    return models


def program(page: str, language: str, served: Served) -> str:
    """Return the blocks of a page as one program that connects to the server of the test."""
    found = blocks(PAGES / page, language=language)
    assert found
    text = "\n".join(block.text for block in found)
    assert ADDRESS in text
    return text.replace(ADDRESS, served.url)


def output(command: Sequence[str], text: str, folder: Path, **environment: str) -> str:
    """Run a program that it is given on standard input or in a file, and return what it prints."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OLLAMA_", "OPENAI_"))}
    done = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        cwd=folder,
        env=inherited | environment,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("page", ["ollama.md", "openai.md", "anthropic.md", "langchain.md"])
def test_the_python_snippets(page: str, models: Served, tmp_path: Path) -> None:
    printed = output([sys.executable, "-"], program(page, "python", models), tmp_path)
    assert "Paris" in printed


@pytest.mark.clients
def test_the_python_snippets_of_llamaindex(models: Served, clients_python: Path, tmp_path: Path) -> None:
    printed = output([str(clients_python), "-"], program("llamaindex.md", "python", models), tmp_path)
    assert "Paris" in printed
    assert "Oslo is the capital of Norway." in printed


@pytest.mark.clients
def test_the_python_snippets_of_litellm_and_the_models_of_its_proxy(
    models: Served, clients_python: Path, tmp_path: Path
) -> None:
    """The proxy makes a Router of its list of models. One process for both, since litellm takes seconds to import."""
    [block] = blocks(PAGES / "litellm.md", language="yaml", heading="Proxy")
    config = yaml.safe_load(block.text.replace(ADDRESS, models.url))
    calls = """
import json, sys
router = litellm.Router(model_list=json.loads(sys.argv[1]))
routed = router.completion(model="smollm2", messages=question, max_tokens=20, temperature=0)
print("routed:", routed.choices[0].message.content)
print("routed:", len(router.embedding(model="all-minilm", input=["a", "b"]).data[0]["embedding"]))
"""
    text = program("litellm.md", "python", models) + calls
    command = [str(clients_python), "-", json.dumps(config["model_list"])]
    printed = output(command, text, tmp_path, LITELLM_LOCAL_MODEL_COST_MAP="True")
    own, routed, embedded = printed.split("routed:")
    assert "Paris" in own
    assert "Paris" in routed
    assert embedded.strip() == "384"


@pytest.fixture(scope="module")
def packages() -> Path:
    """The folder with the npm packages."""
    try:
        return node_packages.installed()
    except node_packages.PackagesError as error:
        if os.environ.get("CORRAL_REQUIRE_CLIENTS") == "1":
            pytest.fail(f"CORRAL_REQUIRE_CLIENTS=1, but {error}", pytrace=False)
        pytest.skip(str(error))


def node(text: str, packages: Path, *arguments: str) -> str:
    """Run a module of JavaScript in the folder with the packages, where it finds them."""
    return output(["node", "--input-type=module", "-", *arguments], text, packages)


@pytest.mark.clients
@pytest.mark.parametrize("page", ["ollama.md", "openai.md"])
def test_the_javascript_snippets(page: str, models: Served, packages: Path) -> None:
    printed = node(program(page, "js", models), packages)
    assert "Paris" in printed
    assert "2 384" in printed


@pytest.mark.parametrize("block", CURL_BLOCKS, ids=str)
def test_the_curl_commands(block: Any, models: Served, tmp_path: Path) -> None:
    assert ADDRESS in block.text
    output(["bash", "-e"], script(block).replace(ADDRESS, models.url), tmp_path)


def test_there_are_curl_commands_on_each_page_that_has_them() -> None:
    counts = {page: sum(block.page.name == page for block in CURL_BLOCKS) for page in ("faq.md", "curl.md")}
    assert counts["faq.md"] >= 5
    assert counts["curl.md"] >= 7


def test_a_page_of_another_origin_is_refused_as_the_faq_says(models: Served, tmp_path: Path) -> None:
    [block] = [block for block in CURL_BLOCKS if "Origin:" in block.text]
    printed = output(["bash", "-e"], block.text.replace(ADDRESS, models.url), tmp_path)
    assert printed.split() == ["200", "403"]


# Continue: its configuration, and the requests that it makes of it


def continue_config() -> Mapping[str, Any]:
    [block] = blocks(PAGES / "continue.md", language="yaml")
    found: Mapping[str, Any] = yaml.safe_load(block.text)
    return found


@pytest.mark.clients
def test_continues_configuration_follows_its_schema(packages: Path) -> None:
    check = """
import { configYamlSchema } from "@continuedev/config-yaml";
const config = JSON.parse(process.argv[2]);
const strict = configYamlSchema.strict();
strict.parse(config);
console.log(configYamlSchema.safeParse({ ...config, models: [{ name: 1 }] }).success);
"""
    assert node(check, packages, json.dumps(continue_config())).strip() == "false"


def test_the_requests_of_continue_are_served(models: Served) -> None:
    """The requests of its provider for Ollama, with its ``keep_alive`` of 30 minutes.

    https://github.com/continuedev/continue/blob/d0a3c0b626/core/llm/llms/Ollama.ts
    """
    chat, autocomplete, embeddings = (model["model"] for model in continue_config()["models"])
    messages = [{"role": "user", "content": QUESTION}]
    common = {"options": {"num_ctx": 1024, "num_predict": 20, "stop": ["<end>"]}, "keep_alive": 1800, "stream": True}
    with httpx.Client(base_url=models.url, timeout=START) as http:

        def lines(path: str, **body: object) -> list[dict[str, Any]]:
            response = http.post(path, json=common | body)
            assert response.status_code == 200, response.text
            return [json.loads(line) for line in response.text.splitlines()]

        assert http.post("/api/show", json={"name": chat}).json()["capabilities"] == ["completion"]
        assert chat in [model["name"] for model in http.get("/api/tags").json()["models"]]
        said = "".join(part["message"]["content"] for part in lines("/api/chat", model=chat, messages=messages))
        assert "Paris" in said
        raw = lines("/api/generate", model=autocomplete, prompt="def add(a, b):", raw=True)
        assert raw[-1]["done"] is True
        vectors = http.post("/api/embed", json={"model": embeddings, "input": ["a", "b"]}).json()["embeddings"]
        assert [len(vector) for vector in vectors] == [384, 384]


# A cold Model, with heartbeats


def test_a_cold_start_has_heartbeats(cold: Served) -> None:
    body = {"model": CHATS, "stream": True, "messages": [{"role": "user", "content": QUESTION}], "temperature": 0}
    received = httpx.post(f"{cold.url}/v1/chat/completions", json=body, timeout=START).content
    beats = received.count(COMMENT)
    assert beats > 0
    assert received.startswith(COMMENT * beats)
    assert received.endswith(b"data: [DONE]\n\n")


def test_openais_library_streams_a_cold_start(cold: Served) -> None:
    with openai.OpenAI(base_url=f"{cold.url}/v1", api_key="none", max_retries=0) as client:
        messages: Any = [{"role": "user", "content": QUESTION}]
        chunks = client.chat.completions.create(
            model=CHATS, messages=messages, max_tokens=20, temperature=0, stream=True
        )
        assert "Paris" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def test_anthropics_library_streams_a_cold_start(cold: Served) -> None:
    with (
        anthropic.Anthropic(base_url=cold.url, api_key="none", max_retries=0) as client,
        client.messages.stream(model=CHATS, max_tokens=20, messages=[{"role": "user", "content": QUESTION}]) as stream,
    ):
        assert "Paris" in "".join(stream.text_stream)
