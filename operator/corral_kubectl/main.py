"""Entry point of ``kubectl-corral``, which kubectl runs as ``kubectl corral``: command line and errors."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

from corral_core.base.errors import CorralError
from corral_core.base.process_metrics import build_version
from corral_kube.client import connect_as_user
from corral_kube.errors import KubeError
from corral_kubectl import commands
from corral_kubectl.commands import Session
from corral_kubectl.keys import DEFAULT_SECRET

_MANAGER = "kubectl-corral"


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, 1 after an error, 2 for a wrong command line, 130 after Ctrl+C."""
    options = parser().parse_args(arguments)
    try:
        asyncio.run(_run(options))
    except CorralError as error:
        text = error.server_message if isinstance(error, KubeError) and error.server_message else str(error)
        print(f"kubectl corral: {text}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it at its end
        return 1
    return 0


async def _run(options: argparse.Namespace) -> None:
    kube, namespace = await connect_as_user(options.kubeconfig, options.context, manager=_MANAGER)
    try:
        chosen = "" if getattr(options, "all_namespaces", False) else options.namespace or namespace
        command: commands.Command = options.command
        await command(Session(kube, chosen, options))
    finally:
        await kube.close()


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    root = argparse.ArgumentParser(prog="kubectl corral", description="Language models served by Corral.")
    root.add_argument("--version", action="version", version=build_version())
    subcommands = root.add_subparsers(required=True, metavar="COMMAND")
    common = _common()

    def add(name: str, command: commands.Command, text: str, **options: Any) -> argparse.ArgumentParser:
        parents = [common, *options.pop("parents", ())]
        found = subcommands.add_parser(name, help=text, description=text, parents=parents)
        found.set_defaults(command=command)
        return found

    status = add("status", commands.status, "list Models with phase, queue, GPUs and the reason")
    status.add_argument("models", nargs="*", metavar="MODEL")
    status.add_argument("-A", "--all-namespaces", action="store_true", help="list the Models of all namespaces")
    _add_model(add("why", commands.why, "explain what a Model waits for, and what to do"))
    logs = add("logs", commands.logs, "print the log of a runner, or of the pod that reads or pulls the weights")
    _add_model(logs)
    logs.add_argument("-f", "--follow", action="store_true", help="follow the log")
    logs.add_argument("--tail", type=int, metavar="N", help="print only the last N lines")
    logs.add_argument("-p", "--previous", action="store_true", help="print the log of the container's last run")
    gateway = [_gateway()]
    load = add("load", commands.load, "load a Model and wait until it is loaded", parents=gateway)
    _add_model(load)
    load.add_argument("--keep-alive", metavar="DURATION", help="time that it stays loaded: 30m; -1 for no limit")
    _add_model(add("unload", commands.unload, "unload a Model when its requests have ended", parents=gateway))
    _add_model(add("pull", commands.pull, "pull the weights, or look for a new version of them now", parents=gateway))
    _add_keys(subcommands, common)
    return root


def _common() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-n", "--namespace", default="", help="namespace; default: that of the context")
    common.add_argument("--context", default="", help="context of the kubeconfig; default: the current one")
    common.add_argument("--kubeconfig", default="", help="default: $KUBECONFIG, else ~/.kube/config")
    return common


def _gateway() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--gateway",
        default=os.environ.get("CORRAL_GATEWAY", ""),
        metavar="URL",
        help="URL of the gateway, which gets the key in OLLAMA_API_KEY; default: $CORRAL_GATEWAY, else the Service",
    )
    options.add_argument("--service", default="", metavar="NAMESPACE/NAME", help="Service of the gateways")
    options.add_argument("--tls", action="store_true", help="the gateways accept only TLS (gateway.tls.secret)")
    return options


def _add_model(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", metavar="MODEL", help="name of the Model, or a name that clients use")


def _add_keys(subcommands: Any, common: argparse.ArgumentParser) -> None:
    text = "API keys of a namespace (gateway.apiKeys.namespaceSecret)"
    keys = subcommands.add_parser("keys", help=text, description=text)
    actions = keys.add_subparsers(required=True, metavar="ACTION")
    secret = argparse.ArgumentParser(add_help=False)
    secret.add_argument("--secret", default=DEFAULT_SECRET, help=f"name of the Secret; default: {DEFAULT_SECRET}")
    listing = actions.add_parser("list", help="list the keys", parents=[common, secret])
    listing.set_defaults(command=commands.list_keys)
    delete = actions.add_parser("delete", help="delete a key", parents=[common, secret])
    delete.set_defaults(command=commands.delete_key)
    create = actions.add_parser("create", help="create a key and print it once", parents=[common, secret])
    create.set_defaults(command=commands.create_key)
    for action in (delete, create):
        action.add_argument("name", metavar="NAME", help="name of the key")
    create.add_argument("--allow", action="append", metavar="PATTERN", help="Models, such as 'llama3*'; default: all")
    create.add_argument("--expires", metavar="TIME", help="such as 2027-01-31T00:00:00Z; default: never")
    for name in ("requests-per-minute", "concurrent", "tokens-per-minute", "tokens-per-day"):
        create.add_argument(f"--{name}", type=int, metavar="N", help="default: unlimited")
