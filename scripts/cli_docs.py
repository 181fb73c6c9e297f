"""Write docs/reference/cli.md: every command of ``corral`` with its arguments, from the parser of the command line.

usage: cli_docs.py [--check]     --check writes nothing and fails if the page is out of date

The text does not depend on the version of Python, as argparse's own help does.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from corral_server.local.cli.parser import build_parser

ROOT = Path(__file__).resolve().parent.parent

PAGE = ROOT / "docs/reference/cli.md"
_HEAD = """\
# The command `corral`

The package's extra `serve` installs it ([laptop.md](../getting-started/laptop.md)). The commands that need a server use
the one at `OLLAMA_HOST`, `http://127.0.0.1:11434` without it, and send the API key in `OLLAMA_API_KEY`. If nothing
listens at an address of this machine, they start a server there; `ps`, `stop` and `logs` do not.

The exit status is 0 on success, 1 on an error, 2 for a wrong command line, and 130 after Ctrl-C. `corral run` without a
prompt reads standard input; on a terminal it is a chat, which `/bye` or Ctrl-D ends.
"""


def page() -> str:
    """Return the text of the page."""
    parts = [_HEAD]
    for name, aliases, about, command in _commands(build_parser(), "corral"):
        also = f" Also: {', '.join(f'`{alias}`' for alias in aliases)}." if aliases else ""
        parts.append(f"\n## {name}\n\n    {_usage(name, command)}\n\n{_sentence(about)}{also}\n")
        rows = [_row(action) for action in _arguments(command)]
        if rows:
            parts.append("\n| argument | description |\n|---|---|\n" + "".join(rows))
    return "".join(parts)


def _commands(
    parser: argparse.ArgumentParser, prefix: str
) -> Iterator[tuple[str, list[str], str, argparse.ArgumentParser]]:
    """Yield full name, aliases, help and parser of each command that has no commands of its own."""
    for group in (action for action in parser._actions if isinstance(action, argparse._SubParsersAction)):
        for choice in group._choices_actions:
            name = choice.dest.partition(" ")[0]
            command = group.choices[name]
            aliases = [other for other, found in group.choices.items() if found is command and other != name]
            if any(isinstance(action, argparse._SubParsersAction) for action in command._actions):
                yield from _commands(command, f"{prefix} {name}")
            else:
                yield f"{prefix} {name}", aliases, choice.help or "", command


def _arguments(command: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in command._actions if not isinstance(action, argparse._HelpAction)]


def _usage(name: str, command: argparse.ArgumentParser) -> str:
    arguments = _arguments(command)
    ordered = sorted(arguments, key=lambda action: not action.option_strings)
    return " ".join([name, *map(_usage_part, ordered)])


def _usage_part(action: argparse.Action) -> str:
    if action.option_strings:
        text = " ".join([action.option_strings[0], *([_metavar(action)] if action.nargs != 0 else [])])
        return text if action.required else f"[{text}]"
    return _metavar(action)


def _metavar(action: argparse.Action) -> str:
    """Return the name of a value with its number: one, optional, or repeated."""
    name = action.metavar or ("|".join(map(str, action.choices)) if action.choices else action.dest.upper())
    return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} [{name} ...]"}.get(str(action.nargs), str(name))


def _row(action: argparse.Action) -> str:
    value = f" {_metavar(action)}" if action.option_strings and action.nargs != 0 else ""
    shown = [f"`{option}{value}`" for option in action.option_strings] or [f"`{_metavar(action)}`"]
    cells = [cell.replace("|", r"\|") for cell in (", ".join(shown), action.help or "")]
    return f"| {cells[0]} | {cells[1]} |\n"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        if not PAGE.exists() or PAGE.read_text() != page():
            sys.exit("docs/reference/cli.md is out of date: run scripts/cli_docs.py")
        return
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
