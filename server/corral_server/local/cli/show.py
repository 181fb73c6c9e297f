"""``corral show``: facts of a model in the form of Ollama's command."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import ollama

from corral_server.local.cli.api_client import client_errors, connect

_LICENSE_LINES = 2


def show(name: str, part: str | None) -> int:
    """Print the facts of a model, or one of the parser's SHOW_PARTS as it is. Raises RequestFailed."""
    with client_errors():
        found = connect().show(name)
    if part is not None:
        print(part_text(found, part))
        return 0
    for title, rows in sections(found):
        width = max(len(row[0]) for row in rows)
        print(f"  {title}")
        for key, value in rows:
            print(f"    {key.ljust(width)}    {value}".rstrip())
        print()
    return 0


def part_text(found: ollama.ShowResponse, part: str) -> str:
    """Return one of the parser's SHOW_PARTS; empty if the model has none."""
    text = (found.model_extra or {}).get(part) if part == "system" else getattr(found, part)
    return str(text or "").rstrip("\n")


def sections(found: ollama.ShowResponse) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield the titles and rows of Ollama's tables that are not empty (Ollama: cmd/cmd.go, showInfo)."""
    license_text = part_text(found, "license").strip()
    parts = (
        ("Model", _model_rows(found)),
        ("Capabilities", [(capability, "") for capability in found.capabilities or ()]),
        ("Parameters", [_pair(line) for line in part_text(found, "parameters").splitlines() if line.strip()]),
        ("System", [(line.strip(), "") for line in part_text(found, "system").splitlines() if line.strip()]),
        ("License", [(line.strip(), "") for line in license_text.splitlines()[:_LICENSE_LINES] if line.strip()]),
    )
    yield from ((title, rows) for title, rows in parts if rows)


def _model_rows(found: ollama.ShowResponse) -> list[tuple[str, str]]:
    info: Mapping[str, object] = found.modelinfo or {}
    details = found.details
    architecture = str(info.get("general.architecture") or (details.family if details else "") or "")
    rows = (
        ("architecture", architecture),
        ("parameters", (details.parameter_size if details else "") or ""),
        ("context length", info.get(f"{architecture}.context_length", "")),
        ("embedding length", info.get(f"{architecture}.embedding_length", "")),
        ("quantization", (details.quantization_level if details else "") or ""),
    )
    return [(key, str(value)) for key, value in rows if value not in ("", None)]


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.strip().partition(" ")
    return key, value.strip()
