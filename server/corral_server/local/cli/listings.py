"""``corral ls`` and ``corral ps``: tables in the format of Ollama's command."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import ollama

from corral_core.base.quantities import format_size
from corral_server.local.cli.api_client import all_tags, client_errors, connect
from corral_server.local.cli.tables import print_table
from corral_server.local.pulls.progress_text import duration_text

FOREVER_YEARS = 20


def ps() -> int:
    """Print loaded models in the format of ``ollama ps`` (Ollama: cmd/cmd.go, ListRunningHandler)."""
    with client_errors():
        models = connect(start=False).ps().models
    rows: list[tuple[str, ...]] = [("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL")]
    rows += [_row(model, datetime.now(UTC)) for model in models]
    print_table(rows)
    return 0


def list_models() -> int:
    """Print all models in the format of ``ollama list``, with the state of those that are being pulled."""
    rows: list[tuple[str, ...]] = [("NAME", "ID", "SIZE", "MODIFIED", "STATE")]
    with client_errors():
        for tag in all_tags(connect()):
            model = ollama.ListResponse.Model.model_validate(tag)
            age = datetime.now(UTC) - model.modified_at if model.modified_at else None
            modified = f"{duration_text(max(0.0, age.total_seconds()))} ago" if age else ""
            size = format_size(int(model.size or 0)) if model.size else "-"
            rows.append((model.model or "", (model.digest or "")[:12], size, modified, _pulling_text(tag)))
    print_table(rows)
    return 0


def _pulling_text(tag: Mapping[str, Any]) -> str:
    sizes = tag.get("pulling")
    if sizes is None:
        return ""
    if error := sizes.get("error"):
        return f"Failed: {error}"
    total, completed = int(sizes["total"]), int(sizes["completed"])
    return f"Pulling, {100 * completed // total} %" if total else f"Pulling, {format_size(completed)}"


def _row(model: ollama.ProcessResponse.Model, now: datetime) -> tuple[str, ...]:
    size, vram = int(model.size or 0), int(model.size_vram or 0)
    digest = (model.digest or "")[:12]
    return model.model or "", digest, format_size(size), processor(size, vram), _context(model), until(model, now)


def _context(model: ollama.ProcessResponse.Model) -> str:
    return str(model.context_length or "")


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
