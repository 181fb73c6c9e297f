"""``corral run`` and ``corral ps``: thin over Ollama's own Python client, which honours OLLAMA_HOST."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import httpx
import ollama

from corral_core.errors import CorralError

FOREVER_YEARS = 20
PATIENCE = httpx.Timeout(3600.0, connect=5.0)
"""Seconds: a request may wait long for a place, and a model may think long."""


class CannotAsk(CorralError):
    """The server cannot be reached or refused; the text says which."""


def run(name: str, words: Sequence[str]) -> int:
    """Streams one answer, or one to each line that is typed."""
    client = ollama.Client(timeout=PATIENCE)
    if words:
        _answer(client, name, [{"role": "user", "content": " ".join(words)}])
    elif sys.stdin.isatty():
        _talk(client, name)
    else:
        _answer(client, name, [{"role": "user", "content": sys.stdin.read()}])
    return 0


def ps() -> int:
    """Prints Ollama's table."""
    with _errors():
        models = ollama.Client(timeout=PATIENCE).ps().models
    rows: list[tuple[str, ...]] = [("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL")]
    rows += [_row(model, datetime.now(UTC)) for model in models]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("    ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _answer(client: ollama.Client, name: str, messages: list[dict[str, str]]) -> str:
    """Prints the answer as it comes, and returns it. Raises CannotAsk."""
    said = ""
    with _errors():
        for chunk in client.chat(name, messages, stream=True):
            piece = chunk.message.content or ""
            said += piece
            print(piece, end="", flush=True)
    print()
    return said


@contextlib.contextmanager
def _errors() -> Iterator[None]:
    """The client's errors as CannotAsk; some calls raise the errors of the HTTP library below it."""
    try:
        yield
    except ollama.ResponseError as error:
        raise CannotAsk(error.error) from error
    except (ConnectionError, httpx.TransportError) as error:
        where = os.environ.get("OLLAMA_HOST") or "127.0.0.1:11434"
        raise CannotAsk(f"no answer from {where} ({error.__cause__ or error}); is `corral serve` running?") from error


def _talk(client: ollama.Client, name: str) -> None:
    """A conversation; it ends with the input (Ctrl-D) or ``/bye``."""
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
            messages.append({"role": "assistant", "content": _answer(client, name, messages)})


def _row(model: ollama.ProcessResponse.Model, now: datetime) -> tuple[str, ...]:
    size, vram = int(model.size or 0), int(model.size_vram or 0)
    digest = (model.digest or "")[:12]
    return model.model or "", digest, human_size(size), processor(size, vram), _context(model), until(model, now)


def _context(model: ollama.ProcessResponse.Model) -> str:
    return str(model.context_length or "")


def human_size(size: int) -> str:
    """Decimal units, as Ollama prints them: ``1.3 GB``."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size >= scale:
            value = size / scale
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{size} B"


def processor(size: int, vram: int) -> str:
    """Where the model is: ``100% CPU``, ``100% GPU`` or the shares of both."""
    if vram == 0:
        return "100% CPU"
    if vram >= size:
        return "100% GPU"
    share = round(100 * (size - vram) / size)
    return f"{share}%/{100 - share}% CPU/GPU"


def until(model: ollama.ProcessResponse.Model, now: datetime) -> str:
    if model.expires_at is None:
        return ""
    left = (model.expires_at - now).total_seconds()
    if left > FOREVER_YEARS * 365 * 86400:
        return "Forever"
    if left <= 0:
        return "Stopping..."
    for unit, seconds in (("hour", 3600), ("minute", 60), ("second", 1)):
        if left >= seconds:
            count = int(left // seconds)
            return f"{count} {unit}{'s' if count > 1 else ''} from now"
    return "Less than a second from now"
