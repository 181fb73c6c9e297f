"""Shell completion of ``corral`` by argcomplete: commands, options, files, and names of the running server's models."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import argcomplete
import httpx
import ollama
from argcomplete.completers import SuppressCompleter
from argcomplete.shell_integration import shellcode

from corral_server.local.cli.api_client import all_tags

_TIMEOUT: Final = httpx.Timeout(1.0)
"""Seconds for which the shell waits for names."""
_LATEST: Final = ":latest"
_Completer = Callable[..., Iterable[str]]


def complete(parser: argparse.ArgumentParser) -> None:
    """Print the completions that the shell asks for, and exit."""
    add_completers(parser)
    argcomplete.autocomplete(parser)


def print_shell_code(shell: str) -> int:
    """Print the code that makes the shell ask for completions."""
    print(shellcode(["corral"], shell=shell))
    return 0


def served_names(**_: object) -> list[str]:
    """Return the names of the server's models; none without a server."""
    try:
        return [_short(str(tag.get("name", ""))) for tag in all_tags(_client())]
    except (ollama.ResponseError, httpx.HTTPError, ValueError, ConnectionError):
        return []


def loaded_names(**_: object) -> list[str]:
    """Return the names of the models that are loaded."""
    try:
        return [_short(model.model or "") for model in _client().ps().models]
    except (ollama.ResponseError, httpx.HTTPError, ValueError, ConnectionError):
        return []


_COMPLETERS: Final[dict[tuple[str, str], _Completer]] = {
    ("run", "name"): served_names,
    ("run", "prompt"): SuppressCompleter(),
    ("show", "name"): served_names,
    ("logs", "name"): served_names,
    ("stop", "names"): loaded_names,
    ("pull", "target"): served_names,
    ("cp", "source"): served_names,
    ("cp", "destination"): SuppressCompleter(),
    ("create", "name"): SuppressCompleter(),
    ("rm", "names"): served_names,
    ("key", "name"): SuppressCompleter(),
}


def add_completers(parser: argparse.ArgumentParser) -> None:
    """Set the attribute by which argcomplete finds the completer of an argument."""
    for name, command in subcommands(parser):
        for action in command._actions:
            if (completer := _COMPLETERS.get((name, action.dest))) is not None:
                vars(action)["completer"] = completer


def subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield the names and parsers of the commands, aliases included."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _client() -> ollama.Client:
    return ollama.Client(timeout=_TIMEOUT)


def _short(name: str) -> str:
    """Return a name without the tag that is used when none is given."""
    return name.removesuffix(_LATEST)
