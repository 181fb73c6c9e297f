"""Shell completion: the code for each shell, and names without a server. test_first_hour.py completes names in bash."""

from __future__ import annotations

import argparse
import shutil
import subprocess

import pytest

from corral_server.local.cli.completion import _COMPLETERS, loaded_names, print_shell_code, served_names, subcommands
from corral_server.local.cli.parser import SHELLS, build_parser
from tests.support.ports import free_port


@pytest.mark.parametrize("shell", SHELLS)
def test_the_code_of_each_shell_registers_the_command_and_parses(
    shell: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert print_shell_code(shell) == 0
    code = capsys.readouterr().out
    assert "complete --command corral" in code if shell == "fish" else "#compdef corral" in code
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=code, text=True, check=True, timeout=30)


def test_without_a_server_no_names_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_HOST", f"127.0.0.1:{free_port()}")
    assert (served_names(), loaded_names()) == ([], [])


def test_every_completer_belongs_to_an_argument() -> None:
    commands: dict[str, argparse.ArgumentParser] = dict(subcommands(build_parser()))
    arguments = {(name, action.dest) for name, command in commands.items() for action in command._actions}
    assert _COMPLETERS.keys() <= arguments
