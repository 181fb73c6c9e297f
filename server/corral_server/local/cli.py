"""``corral``: serve Model files on this machine, ask a model, see what is loaded, check a Model file."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from corral_core.errors import CorralError, InvalidModel
from corral_core.resource import claims, load_models
from corral_server.local.config import LocalConfig
from corral_server.local.files import model_files
from corral_server.local.logs import EventLog


def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with 0 when all went well, 1 when not, 2 when the command line is wrong."""
    chosen = _parser().parse_args(arguments)
    try:
        sys.exit(_run(chosen))
    except CorralError as error:
        sys.exit(f"corral: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


def _run(chosen: argparse.Namespace) -> int:
    if chosen.command == "serve":
        return _serve(chosen)
    if chosen.command == "key":
        from corral_server.gateway.keys.make import main as make_key  # only those who make a key need it

        return make_key([chosen.name])
    if chosen.command == "validate":
        return validate(chosen.files)
    from corral_server.local import client  # only those who ask a server need its client

    return client.ps() if chosen.command == "ps" else client.run(chosen.name, chosen.prompt)


def _serve(chosen: argparse.Namespace) -> int:
    from corral_server.local.serve import serve  # validating a file needs no server

    config = LocalConfig.from_environment(os.environ, host=chosen.host, port=chosen.port)
    log = EventLog(sys.stdout, human=sys.stdout.isatty(), verbose=config.verbose)
    serve(config, chosen.files, log)
    return 0


def validate(paths: Sequence[Path]) -> int:
    """Prints what is wrong with each file; 0 when nothing is."""
    problems = 0
    models = []
    files = model_files(paths)
    if not files:
        print("there is no Model file")
        return 1
    for path in files:
        try:
            found = load_models(path.read_text("utf-8"))
        except (InvalidModel, OSError, UnicodeDecodeError) as error:
            print(f"{path}: {error}")
            problems += 1
            continue
        if not found:
            print(f"{path}: there is no Model in it")
            problems += 1
            continue
        models += found
        print(f"{path}: {', '.join(model.key for model in found)}: valid")
    for key, reason in claims(models).items():
        print(f"{key}: {reason}")
        problems += 1
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="corral", description="Local language models with Ollama's manners.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="serve the Models of files, or of all YAML files in folders")
    serve.add_argument("files", nargs="+", type=Path, metavar="FILE|DIR")
    serve.add_argument("--host", help="address to listen on (default: OLLAMA_HOST's, or 127.0.0.1)")
    serve.add_argument("--port", type=_port, help="port to listen on, 0 for any (default: OLLAMA_HOST's, or 11434)")
    run = commands.add_parser("run", help="ask a model; without a prompt, what comes on standard input")
    run.add_argument("name", metavar="NAME")
    run.add_argument("prompt", nargs="*", metavar="PROMPT")
    commands.add_parser("ps", help="list the models that are loaded")
    key = commands.add_parser("key", help="make an API key, and the entry for the gateway's file of keys")
    key.add_argument("name", metavar="NAME")
    check = commands.add_parser("validate", help="say what is wrong with Model files")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE|DIR")
    return parser


def _port(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: a number from 0 to 65535")
    return int(text)
