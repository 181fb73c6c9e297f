"""``corral run``: one answer, or a conversation on a terminal. A model that the server does not have is pulled."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import ollama

from corral_server.local.cli.api_client import all_tags, client_errors, connect, full_name
from corral_server.local.cli.pull_model import follow_pull
from corral_server.local.pulls.progress_line import progress_line


def run(name: str, words: Sequence[str]) -> int:
    """Stream one answer, or one per typed line."""
    client = connect()
    _wait_until_pulled(client, name)
    if words:
        _stream_answer(client, name, [{"role": "user", "content": " ".join(words)}])
    elif sys.stdin.isatty():
        _chat(client, name)
    else:
        _stream_answer(client, name, [{"role": "user", "content": sys.stdin.read()}])
    return 0


def _wait_until_pulled(client: ollama.Client, name: str) -> None:
    """Show the progress of the model's pull until it has ended; begin one if the server has no model of this name.

    Ollama's command does the same (cmd/cmd.go, RunHandler). Returns at once for a model that is not pulled now.
    """
    with client_errors():
        found = [tag for tag in all_tags(client) if str(tag.get("name", "")).lower() == full_name(name).lower()]
        if any("pulling" in tag for tag in found) or (not found and _is_unknown(client, name)):
            with progress_line() as line:
                follow_pull(client, name, line)


def _is_unknown(client: ollama.Client, name: str) -> bool:
    """Return whether the server has no model of this name: names that are not listed, such as digests, may work."""
    try:
        client.show(name)
    except ollama.ResponseError as error:
        if error.status_code == 404:
            return True
        raise
    return False


def _stream_answer(client: ollama.Client, name: str, messages: list[dict[str, str]]) -> str:
    """Print the answer as it streams, and return it. Raises RequestFailed."""
    answer = ""
    with client_errors():
        for chunk in client.chat(name, messages, stream=True):
            piece = chunk.message.content or ""
            answer += piece
            print(piece, end="", flush=True)
    print()
    return answer


def _chat(client: ollama.Client, name: str) -> None:
    """Hold a conversation until the input ends (Ctrl-D) or the user types ``/bye``."""
    messages: list[dict[str, str]] = []
    while True:
        try:
            line = input(">>> ")
        except EOFError:
            print()
            return
        if line.strip() == "/bye":
            return
        if line.strip():
            messages.append({"role": "user", "content": line})
            messages.append({"role": "assistant", "content": _stream_answer(client, name, messages)})
