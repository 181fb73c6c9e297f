"""Command lines of ``corral``. ``docs/reference/cli.md`` is made from this parser (``scripts/cli_docs.py``)."""

from __future__ import annotations

import argparse
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeAlias

from corral_core.base.durations import parse_duration
from corral_core.base.errors import InvalidDuration, InvalidQuantity
from corral_core.base.quantities import parse_quantity

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"

SHELLS = ("bash", "zsh", "fish")
SHOW_PARTS = ("license", "modelfile", "parameters", "system", "template")
"""Parts of a model's facts that an option of the same name prints alone."""
_URI = "a source such as ollama://llama3.2:1b"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser. The name of the command is ``command``, whatever alias was typed."""
    parser = argparse.ArgumentParser(prog="corral", description="Local language models with an Ollama-compatible API.")
    parser.add_argument("--version", action="version", version=f"corral {package_version()}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_server(commands)
    _add_requests(commands)
    _add_management(commands)
    _add_files(commands)
    _add_cache(commands)
    _add_tools(commands)
    return parser


def package_version() -> str:
    """Return the version of the installed package."""
    try:
        return version("corral")
    except PackageNotFoundError:
        return "unknown"


def _add_server(commands: Commands) -> None:
    serve = commands.add_parser(
        "serve", help="serve created Models, and those in files or in all YAML files of folders"
    )
    serve.add_argument("files", nargs="*", type=Path, metavar="FILE|DIR", help="Model files to serve")
    serve.add_argument("--host", help="address to listen on (default: that of OLLAMA_HOST, or 127.0.0.1)")
    serve.add_argument(
        "--port", type=_port, help="port to listen on, 0 for a free one (default: that of OLLAMA_HOST, or 11434)"
    )
    logs = commands.add_parser("logs", help="print the log of the server that a command has started")
    logs.add_argument("name", nargs="?", metavar="NAME", help="only what concerns this model and its runners")
    logs.add_argument("-f", "--follow", action="store_true", help="continue with new lines until Ctrl-C")
    logs.add_argument("-n", "--lines", type=_count, default=100, help="number of lines (default: 100)")
    logs.add_argument("--json", action="store_true", help="print the lines as they are in the file, as JSON")


def _add_requests(commands: Commands) -> None:
    run = commands.add_parser("run", help="send a prompt to a model, which is pulled if the server does not have it")
    run.add_argument("name", metavar="NAME", help="name of the model, such as llama3.2:1b")
    run.add_argument(
        "prompt", nargs="*", metavar="PROMPT", help="the prompt (default: standard input, a chat on a terminal)"
    )
    commands.add_parser("ps", help="list loaded models")
    listing = commands.add_parser(
        "list", aliases=["ls"], help="list all models, and how far those are that are being pulled"
    )
    listing.set_defaults(command="list")
    show = commands.add_parser("show", help="show facts of a model")
    show.add_argument("name", metavar="NAME", help="name of the model")
    parts = show.add_mutually_exclusive_group()
    for part in SHOW_PARTS:
        parts.add_argument(f"--{part}", dest="part", action="store_const", const=part, help=f"print only the {part}")
    stop = commands.add_parser("stop", help="unload models, or end the server that a command has started")
    stop.add_argument("names", nargs="*", metavar="NAME", help="names of loaded models")
    stop.add_argument("--server", action="store_true", help="end the server after the requests that it is serving")


def _add_management(commands: Commands) -> None:
    pull = commands.add_parser("pull", help="have the server pull a model, or pull a source into the cache")
    pull.add_argument("target", metavar="NAME|URI", help=f"a model's name, or {_URI}")
    create = commands.add_parser("create", help="create a model from a Modelfile")
    create.add_argument("name", metavar="NAME", help="name of the new model")
    create.add_argument("-f", "--file", type=Path, default=Path("Modelfile"), help="the Modelfile (default: Modelfile)")
    copy = commands.add_parser("cp", help="create a model with another name from an existing one")
    copy.add_argument("source", metavar="SOURCE", help="name of the existing model")
    copy.add_argument("destination", metavar="DESTINATION", help="name of the new model")
    remove = commands.add_parser("rm", help="delete models that were created by name")
    remove.add_argument("names", nargs="+", metavar="NAME", help="names of models")


def _add_files(commands: Commands) -> None:
    apply = commands.add_parser("apply", help="serve the Models of files on this machine, as kubectl does on a cluster")
    delete = commands.add_parser("delete", help="no longer serve the Models of files that were applied")
    for command in (apply, delete):
        about = "Model files, folders with YAML files, or - for standard input"
        command.add_argument("files", nargs="*", type=Path, metavar="FILE|DIR", help=about)
        command.add_argument(
            "-f",
            "--filename",
            action="append",
            type=Path,
            default=[],
            dest="named",
            metavar="FILE|DIR",
            help="the same, as kubectl has it",
        )
    check = commands.add_parser("validate", help="check Model files for errors")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE|DIR", help="Model files")


def _add_cache(commands: Commands) -> None:
    cache = commands.add_parser("cache", help="list and remove pulled weights")
    actions = cache.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("ls", help="list pulled sources and unfinished downloads")
    prune = actions.add_parser("prune", help="remove unfinished downloads and files that belong to no source")
    prune.add_argument(
        "--age", type=_duration, default=86400.0, help="only what is unused for so long, at least 10m (default: 24h)"
    )
    prune.add_argument(
        "--size-limit", type=_size, help="then remove the least recently used sources down to this size, such as 50G"
    )
    remove = actions.add_parser("rm", help="remove pulled sources")
    remove.add_argument("sources", nargs="+", metavar="URI", help=_URI)


def _add_tools(commands: Commands) -> None:
    doctor = commands.add_parser("doctor", help="check this machine and the installation, and say what to do")
    doctor.add_argument("--json", action="store_true", help="print the findings as JSON")
    completion = commands.add_parser("completion", help="print the completion code of a shell")
    completion.add_argument("shell", choices=SHELLS, help='for bash: eval "$(corral completion bash)"')
    key = commands.add_parser("key", help="create an API key and print its entry for the gateway's key file")
    key.add_argument("name", metavar="NAME", help="name of the key")
    key.add_argument("--namespace", help="namespace whose Secret gets the entry (default: for the key file)")


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except InvalidDuration as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _size(text: str) -> int:
    try:
        return int(parse_quantity(text))
    except InvalidQuantity as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port; use a number from 0 to 65535")
    return int(text)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of lines")
    return int(text)
