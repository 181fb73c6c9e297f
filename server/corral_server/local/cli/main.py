"""Command ``corral``: parses the command line and runs one command.

Modules of commands are imported on use: completion and ``--version`` need none of them.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from corral_core.base.errors import CorralError
from corral_server.local.cli.parser import build_parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command. Exit status: 0 on success, 1 on an error, 2 on a wrong command line."""
    parser = build_parser()
    if "_ARGCOMPLETE" in os.environ:
        from corral_server.local.cli.completion import complete  # imported on use

        complete(parser)
    chosen = parser.parse_args(arguments)
    if chosen.command in ("apply", "delete") and not chosen.files + chosen.named:
        parser.error(f"{chosen.command}: name a Model file or a folder")
    if chosen.command == "stop" and not chosen.server and not chosen.names:
        parser.error("stop: name a model, or end the server with --server")
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
    if chosen.command in ("serve", "logs"):
        return _server(chosen)
    if chosen.command in ("apply", "delete", "validate", "cache"):
        return _files(chosen)
    if chosen.command in ("doctor", "completion", "key"):
        return _tools(chosen)
    if chosen.command == "pull" and "://" in chosen.target:
        from corral_server.local.cli.pull_source import pull_source

        return pull_source(chosen.target, os.environ)
    return _request(chosen)


def _server(chosen: argparse.Namespace) -> int:
    if chosen.command == "logs":
        from corral_server.local.cli.logs import show_logs

        return show_logs(chosen.name, lines=chosen.lines, follow=chosen.follow, raw=chosen.json)
    from corral_server.local.config import LocalConfig
    from corral_server.local.event_log import EventLog
    from corral_server.local.serve import serve

    config = LocalConfig.from_environment(os.environ, host=chosen.host, port=chosen.port)
    log = EventLog(sys.stdout, human=sys.stdout.isatty(), verbose=config.verbose)
    serve(config, chosen.files, log)
    return 0


def _files(chosen: argparse.Namespace) -> int:
    """Run a command that needs no server."""
    if chosen.command == "validate":
        from corral_server.local.cli.validate import validate

        return validate(chosen.files)
    if chosen.command == "cache":
        return _cache(chosen)
    from corral_server.local.cli import apply

    files = chosen.files + chosen.named
    return apply.apply(files, os.environ) if chosen.command == "apply" else apply.delete(files, os.environ)


def _cache(chosen: argparse.Namespace) -> int:
    from corral_server.local.cli import cache

    if chosen.action == "ls":
        return cache.list_cache(os.environ)
    if chosen.action == "rm":
        return cache.remove_from_cache(os.environ, chosen.sources)
    return cache.prune_cache(os.environ, age=chosen.age, size_limit=chosen.size_limit)


def _tools(chosen: argparse.Namespace) -> int:
    if chosen.command == "key":
        from corral_server.gateway.auth.generate_key import main as generate_key

        return generate_key([chosen.name, *([chosen.namespace] if chosen.namespace else [])])
    if chosen.command == "completion":
        from corral_server.local.cli.completion import print_shell_code

        return print_shell_code(chosen.shell)
    from corral_server.local.doctor.doctor import examine, print_findings

    return print_findings(examine(os.environ), as_json=chosen.json)


def _request(chosen: argparse.Namespace) -> int:
    """Run a command that is a request to a server."""
    from corral_server.local.cli import chat, listings, models, pull_model, show

    if chosen.command == "stop":
        return models.stop_server() if chosen.server else models.stop(chosen.names)
    if chosen.command == "create":
        return models.create(chosen.name, chosen.file)
    if chosen.command == "cp":
        return models.copy(chosen.source, chosen.destination)
    if chosen.command == "rm":
        return models.remove(chosen.names)
    if chosen.command == "pull":
        return pull_model.pull_model(chosen.target)
    if chosen.command == "run":
        return chat.run(chosen.name, chosen.prompt)
    if chosen.command == "show":
        return show.show(chosen.name, chosen.part)
    return listings.ps() if chosen.command == "ps" else listings.list_models()
