"""The ``ollama`` command creates, copies and deletes Models of ``corral serve``, and pulls unknown names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.command import Command
from tests.clients.served_models import CHATS, STOP
from tests.support.ollama_registry import OllamaRegistry
from tests.support.tiny_model import write_tiny_model

pytestmark = [pytest.mark.process, pytest.mark.clients]

MODELFILE = """FROM tiny
SYSTEM You are a pirate.
PARAMETER num_predict 8
PARAMETER temperature 0
LICENSE MIT
"""


def names(command: Command) -> set[str]:
    return {row[0] for row in command("list").rows[1:]}


@pytest.fixture(autouse=True)
def nothing_left(command: Command) -> Iterator[None]:
    """Delete the models that the test has created, which other tests would list."""
    before = names(command)
    yield
    if created := names(command) - before:
        assert command("rm", *created).status == 0


@pytest.fixture
def pirate(command: Command) -> str:
    """A model that the command has created."""
    (command.home / "Modelfile").write_text(MODELFILE)
    said = command("create", "pirate", "-f", str(command.home / "Modelfile"))
    assert (said.status, "success" in said.err) == (0, True), said
    return "pirate"


def test_run_of_an_unknown_name_pulls_and_answers(command: Command, registry: OllamaRegistry) -> None:
    digest = registry.push(write_tiny_model(command.home, seed=7).read_bytes(), "new", params={"num_predict": 8})
    name = f"{registry.host}/library/new"
    said = command("run", name, "hi")
    assert (said.status, said.out.strip() != "") == (0, True), said
    steps = [line.strip() for line in said.err.splitlines() if line.strip()]
    assert any(step.startswith(f"pulling {digest[:12]}: 100%") for step in steps)
    assert steps[-3:] == ["verifying sha256 digest", "writing manifest", "success"]
    assert f"{name}:latest" in names(command)


def test_create_from_a_modelfile(command: Command, pirate: str) -> None:
    assert command("show", pirate, "--system").out.strip() == "You are a pirate."
    assert command("show", pirate, "--license").out.strip() == "MIT"
    assert command("show", pirate, "--parameters").rows == [
        ["num_predict", "8"],
        ["temperature", "0"],
        ["stop", f'"{STOP}"'],
    ]
    said = command("run", pirate, "Who are you?")
    assert (said.status, said.out.strip() != "") == (0, True), said


def test_create_from_uploaded_weights(command: Command) -> None:
    weights = write_tiny_model(command.home, seed=8)
    (command.home / "Modelfile").write_text(f"FROM {weights}\nPARAMETER num_predict 8\n")
    said = command("create", "bytes", "-f", str(command.home / "Modelfile"))
    assert (said.status, "parsing GGUF" in said.err, "success" in said.err) == (0, True, True), said
    answered = command("run", "bytes", "hi")
    assert (answered.status, answered.out.strip() != "") == (0, True), answered


def test_push_is_refused_with_the_alternative(command: Command, pirate: str, registry: OllamaRegistry) -> None:
    name = f"{registry.host}/me/pirate"
    assert command("cp", pirate, name).status == 0
    said = command("push", "--insecure", name)
    assert (said.status, "models are not pushed from here" in said.err) == (1, True), said


def test_save_in_a_chat_creates_a_model(command: Command) -> None:
    said = command.typed("run", CHATS, lines=["/set system Be brief.", "/save brief", "/bye"])
    assert (said.status, "Created new model 'brief'" in said.out) == (0, True), said
    assert command("show", "brief", "--system").out.strip() == "Be brief."
