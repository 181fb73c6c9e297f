"""Command line ``corral``: serve Models on this machine, ask, list and manage models, pull weights, check files."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from corral_core.base.durations import parse_duration
from corral_core.base.errors import CorralError, InvalidDuration, InvalidModel, InvalidQuantity
from corral_core.base.quantities import parse_quantity
from corral_core.model.name_index import lost_names
from corral_core.model.resource import load_models
from corral_server.local.config import LocalConfig
from corral_server.local.event_log import EventLog
from corral_server.local.files import model_files


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Exit status: 0 on success, 1 on an error, 2 on a wrong command line."""
    chosen = parser().parse_args(arguments)
    try:
        sys.exit(_run(chosen))
    except CorralError as error:
        sys.exit(f"corral: {error}")
    except BrokenPipeError:  # the reader of the output is gone, as in `corral run m | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


def _run(chosen: argparse.Namespace) -> int:
    if chosen.command == "serve":
        return _serve(chosen)
    if chosen.command == "key":
        from corral_server.gateway.auth.generate_key import main as generate_key  # imported on use

        return generate_key([chosen.name, *([chosen.namespace] if chosen.namespace else [])])
    if chosen.command == "validate":
        return validate(chosen.files)
    if chosen.command == "cache":
        return _cache(chosen)
    if chosen.command == "pull" and "://" in chosen.target:
        from corral_server.local.pulls.pull_command import pull_source  # imported on use

        return pull_source(chosen.target, os.environ)
    return _request(chosen)


def _request(chosen: argparse.Namespace) -> int:
    """Run a command that is a request to a server."""
    from corral_server.local import client  # imported on use: it brings the HTTP client
    from corral_server.local.management import commands  # imported on use

    if chosen.command == "create":
        return commands.create(chosen.name, chosen.file)
    if chosen.command == "cp":
        return commands.copy(chosen.source, chosen.destination)
    if chosen.command == "rm":
        return commands.remove(chosen.names)
    if chosen.command == "pull":
        return client.pull(chosen.target)
    if chosen.command == "run":
        return client.run(chosen.name, chosen.prompt)
    return client.ps() if chosen.command == "ps" else client.list_models()


def _cache(chosen: argparse.Namespace) -> int:
    from corral_server.local.pulls import cache_command  # imported on use

    if chosen.action == "ls":
        return cache_command.list_cache(os.environ)
    if chosen.action == "rm":
        return cache_command.remove_from_cache(os.environ, chosen.sources)
    return cache_command.prune_cache(os.environ, age=chosen.age, size_limit=chosen.size_limit)


def _serve(chosen: argparse.Namespace) -> int:
    from corral_server.local.serve import serve  # imported on use: validation needs no server

    config = LocalConfig.from_environment(os.environ, host=chosen.host, port=chosen.port)
    log = EventLog(sys.stdout, human=sys.stdout.isatty(), verbose=config.verbose)
    serve(config, chosen.files, log)
    return 0


def validate(paths: Sequence[Path]) -> int:
    """Print the errors of each file; return 0 if there are none."""
    problems = 0
    models = []
    files = model_files(paths)
    if not files:
        print("no Model file found; name a YAML file or a folder with YAML files")
        return 1
    for path in files:
        try:
            found = load_models(path.read_text("utf-8"))
        except (InvalidModel, OSError, UnicodeDecodeError) as error:
            print(f"{path}: {error}")
            problems += 1
            continue
        if not found:
            print(f"{path}: the file has no Model")
            problems += 1
            continue
        models += found
        print(f"{path}: {', '.join(model.key for model in found)}: valid")
    for key, reason in lost_names(models).items():
        print(f"{key}: {reason}")
        problems += 1
    return 1 if problems else 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; the tests of the documentation parse its commands with it."""
    root = argparse.ArgumentParser(prog="corral", description="Local language models with an Ollama-compatible API.")
    commands = root.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser(
        "serve", help="serve created Models, and those in files or in all YAML files of folders"
    )
    serve.add_argument("files", nargs="*", type=Path, metavar="FILE|DIR")
    serve.add_argument("--host", help="address to listen on (default: that of OLLAMA_HOST, or 127.0.0.1)")
    serve.add_argument(
        "--port", type=_port, help="port to listen on, 0 for a free one (default: that of OLLAMA_HOST, or 11434)"
    )
    run = commands.add_parser("run", help="send a prompt to a model; without PROMPT it is read from standard input")
    run.add_argument("name", metavar="NAME")
    run.add_argument("prompt", nargs="*", metavar="PROMPT")
    commands.add_parser("ps", help="list loaded models")
    commands.add_parser("list", help="list all models, and how far those are that are being pulled")
    pull = commands.add_parser("pull", help="have the server pull a model, or pull a source into the cache")
    pull.add_argument("target", metavar="NAME|URI", help="a model's name, or a source such as ollama://llama3.2:1b")
    _add_management(commands)
    _add_cache(commands)
    key = commands.add_parser("key", help="create an API key and print its entry for the gateway's key file")
    key.add_argument("name", metavar="NAME")
    key.add_argument("--namespace", help="namespace whose Secret gets the entry (default: for the key file)")
    check = commands.add_parser("validate", help="check Model files for errors")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE|DIR")
    return root


def _add_management(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    create = commands.add_parser("create", help="create a model from a Modelfile")
    create.add_argument("name", metavar="NAME")
    create.add_argument("-f", "--file", type=Path, default=Path("Modelfile"), help="the Modelfile (default: Modelfile)")
    copy = commands.add_parser("cp", help="create a model with another name from an existing one")
    copy.add_argument("source", metavar="SOURCE")
    copy.add_argument("destination", metavar="DESTINATION")
    remove = commands.add_parser("rm", help="delete models")
    remove.add_argument("names", nargs="+", metavar="NAME")


def _add_cache(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
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
    remove.add_argument("sources", nargs="+", metavar="URI")


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
