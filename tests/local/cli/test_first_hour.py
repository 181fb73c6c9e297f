"""What a user types in the first hour on a laptop: nothing runs before the first command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.local.background.home import corral, home, pid_of
from tests.local.served import START, model_file
from tests.support.ollama_registry import ollama_registry
from tests.support.tiny_model import write_tiny_model
from tests.support.waiting import until

pytestmark = pytest.mark.process

BASH = """\
eval "$({corral} completion bash)"
COMP_LINE="$1" COMP_POINT=${{#1}} COMP_TYPE=9 _ARGCOMPLETE_SHELL=bash
COMP_WORDS=($1) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_python_argcomplete corral "${{COMP_WORDS[-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
"""Completes a command line as bash does at Tab: it calls the function that is registered for the command."""


LIFE = ("started", "ready", "stopping", "exited")
"""Events of a runner that is started once and ends as requested."""


def _events(environment: Mapping[str, str], model: str) -> list[str]:
    lines = corral(environment, "logs", model, "--json").stdout.splitlines()
    return [str(json.loads(line)["event"]) for line in lines]


def completions(environment: Mapping[str, str], program: Path, line: str) -> list[str]:
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH.format(corral=program), "bash", line],
        env={**environment, "PATH": f"{program.parent}:{environment['PATH']}"},
        capture_output=True,
        text=True,
        timeout=START,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return sorted(word.strip() for word in done.stdout.split("\n") if word.strip())


def test_a_model_file_is_applied_run_shown_stopped_and_deleted(tmp_path: Path) -> None:
    file = model_file(tmp_path, "smol", contextLength=512, parameters={"num_predict": 4})
    with home(tmp_path / "home") as environment:
        assert corral(environment, "apply", "-f", str(file)).stdout == "model.corral.dev/smol created\n"
        answered = corral(environment, "run", "smol", "Say hi.")
        assert (answered.returncode, answered.stderr.count("starting a server")) == (0, 1), answered.stderr
        assert answered.stdout.strip()
        shown = [line.split() for line in corral(environment, "show", "smol").stdout.splitlines()]
        assert shown[:2] == [["Model"], ["architecture", "llama"]]
        assert ["quantization", "Q4_1"] in shown
        assert ["completion"] in shown
        assert corral(environment, "show", "smol", "--template").stdout.strip()
        assert corral(environment, "ps").stdout.splitlines()[1].split()[0] == "smol:latest"
        assert corral(environment, "stop", "smol").returncode == 0
        until(lambda: _events(environment, "smol")[-1] == "exited", START, what="the end of the runner")
        assert [event for event in _events(environment, "smol") if event in LIFE] == list(LIFE)
        assert corral(environment, "ps").stdout.splitlines()[1:] == []
        assert corral(environment, "stop", "smol").stderr == (
            "corral: 'smol' is not loaded; `corral ps` lists loaded models\n"
        )
        file.write_text(file.read_text().replace('"smol"', '"other"'))
        assert corral(environment, "apply", str(file)).stdout == "model.corral.dev/other created\n"
        assert "other:latest" in corral(environment, "ls").stdout, "it is served when the command has ended"
        assert corral(environment, "delete", "-f", str(file)).stdout == 'model.corral.dev "other" deleted\n'
        assert pid_of(environment) is not None


def test_run_pulls_a_model_that_the_server_does_not_have_and_bash_completes_its_name(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "corral"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nexec "$TEST_PYTHON" -m corral_server.local "$@"\n')
    program.chmod(0o755)
    with ollama_registry() as registry:
        registry.push(write_tiny_model(tmp_path).read_bytes(), params={"num_predict": 3, "temperature": 0})
        name = f"{registry.host}/library/tiny"
        with home(tmp_path / "home", CORRAL_PLAIN_HTTP_HOSTS=registry.host) as environment:
            answered = corral(environment, "run", name, "Hello")
            assert answered.returncode == 0, answered.stderr
            assert corral(environment, "cp", name, "mine:v2").returncode == 0
            assert "ready" in corral(environment, "logs", name).stdout
            assert completions(environment, program, "corral run mi") == ["mine:v2"]
            assert completions(environment, program, "corral completion z") == ["zsh"]
            assert "--follow" in completions(environment, program, "corral logs --f")
