"""``corral run``, ``ps``, ``list`` and ``pull NAME``: a thin layer over Ollama's Python client (OLLAMA_HOST)."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx
import ollama

from corral_core.base.errors import CorralError
from corral_server.local.pulls.progress_line import ProgressLine, progress_line
from corral_server.local.pulls.progress_text import duration_text
from corral_server.local.tables import print_table
from corral_server.pull.progress import PullProgress, PullStage

FOREVER_YEARS = 20
TIMEOUT = httpx.Timeout(3600.0, connect=5.0)
"""Seconds. A request can stay long in the queue, and a model can take long to answer."""


class RequestFailed(CorralError):
    """The server is unreachable or refused the request; the text says which."""


def run(name: str, words: Sequence[str]) -> int:
    """Stream one answer, or one per typed line."""
    client = ollama.Client(timeout=TIMEOUT)
    _wait_until_pulled(client, name)
    if words:
        _stream_answer(client, name, [{"role": "user", "content": " ".join(words)}])
    elif sys.stdin.isatty():
        _chat(client, name)
    else:
        _stream_answer(client, name, [{"role": "user", "content": sys.stdin.read()}])
    return 0


def ps() -> int:
    """Print loaded models in the format of ``ollama ps`` (Ollama: cmd/cmd.go, ListRunningHandler)."""
    with client_errors():
        models = ollama.Client(timeout=TIMEOUT).ps().models
    rows: list[tuple[str, ...]] = [("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL")]
    rows += [_row(model, datetime.now(UTC)) for model in models]
    print_table(rows)
    return 0


def list_models() -> int:
    """Print all models in the format of ``ollama list``, with the state of those that are being pulled."""
    rows: list[tuple[str, ...]] = [("NAME", "ID", "SIZE", "MODIFIED", "STATE")]
    with client_errors():
        for tag in _tags(ollama.Client(timeout=TIMEOUT)):
            model = ollama.ListResponse.Model.model_validate(tag)
            age = datetime.now(UTC) - model.modified_at if model.modified_at else None
            modified = f"{duration_text(max(0.0, age.total_seconds()))} ago" if age else ""
            size = human_size(int(model.size or 0)) if model.size else "-"
            rows.append((model.model or "", (model.digest or "")[:12], size, modified, _pulling_text(tag)))
    print_table(rows)
    return 0


def pull(name: str) -> int:
    """Follow the pull of a model until it has ended."""
    client = ollama.Client(timeout=TIMEOUT)
    with client_errors(), progress_line() as line:
        _follow_pull(client, name, line)
    print(f"{name} is pulled")
    return 0


def _wait_until_pulled(client: ollama.Client, name: str) -> None:
    """Show the progress of the model's pull until it has ended. Returns at once for a model that is not pulled now."""
    with client_errors():
        wanted = name if ":" in name.rpartition("/")[2] else f"{name}:latest"
        if any(tag.get("name", "").lower() == wanted.lower() and "pulling" in tag for tag in _tags(client)):
            with progress_line() as line:
                _follow_pull(client, name, line)


def _follow_pull(client: ollama.Client, name: str, line: ProgressLine) -> None:
    start, first = time.monotonic(), -1
    files: dict[str, tuple[int, int]] = {}
    for report in client.pull(name, stream=True):
        if report.digest:
            files[report.digest] = (report.completed or 0, report.total or 0)
            completed, total = (sum(sizes) for sizes in zip(*files.values(), strict=True))
            first = completed if first < 0 else first
            rate = (completed - first) / max(0.001, time.monotonic() - start)
            line.show(PullProgress(total or None, completed, rate, report.digest, PullStage.PULLING))


def _tags(client: ollama.Client) -> list[dict[str, Any]]:
    """Return the items of ``/api/tags`` as they are: the client's own call drops the fields that Ollama lacks."""
    response = client._client.get("/api/tags")
    response.raise_for_status()
    tags: list[dict[str, Any]] = response.json().get("models") or []
    return tags


def _pulling_text(tag: Mapping[str, Any]) -> str:
    sizes = tag.get("pulling")
    if sizes is None:
        return ""
    if error := sizes.get("error"):
        return f"Failed: {error}"
    total, completed = int(sizes["total"]), int(sizes["completed"])
    return f"Pulling, {100 * completed // total} %" if total else f"Pulling, {human_size(completed)}"


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


@contextlib.contextmanager
def client_errors() -> Iterator[None]:
    """Convert the client's errors to RequestFailed; some calls raise errors of the HTTP library below it."""
    try:
        yield
    except ollama.ResponseError as error:
        raise RequestFailed(error.error) from error
    except httpx.HTTPStatusError as error:
        raise RequestFailed(f"{error.request.url}: {error.response.text[:500]}") from error
    except BrokenPipeError:
        raise  # of the output: the HTTP library has errors of its own for the connection
    except (ConnectionError, httpx.TransportError) as error:
        where = os.environ.get("OLLAMA_HOST") or "127.0.0.1:11434"
        raise RequestFailed(
            f"no answer from {where} ({error.__cause__ or error}); is `corral serve` running?"
        ) from error


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


def _row(model: ollama.ProcessResponse.Model, now: datetime) -> tuple[str, ...]:
    size, vram = int(model.size or 0), int(model.size_vram or 0)
    digest = (model.digest or "")[:12]
    return model.model or "", digest, human_size(size), processor(size, vram), _context(model), until(model, now)


def _context(model: ollama.ProcessResponse.Model) -> str:
    return str(model.context_length or "")


def human_size(size: int) -> str:
    """Return a size in decimal units as Ollama prints it, such as ``1.3 GB`` (Ollama: format/bytes.go)."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size >= scale:
            value = size / scale
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{size} B"


def processor(size: int, vram: int) -> str:
    """Return where the model is: ``100% CPU``, ``100% GPU`` or the share of each (Ollama: cmd/cmd.go)."""
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
