"""``corral show``: facts of a model in the form of Ollama's command."""

from __future__ import annotations

from collections.abc import Iterator

import ollama

from corral_core.base.json_fields import JsonObject, get_object
from corral_server.local.cli.api_client import client_errors, connect

_LICENSE_LINES = 2


def show(name: str, part: str | None) -> int:
    """Print the facts of a model, or one of the parser's SHOW_PARTS as it is. Raises RequestFailed."""
    with client_errors():
        found = _facts(connect(), name)
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


def part_text(found: JsonObject, part: str) -> str:
    """Return one of the parser's SHOW_PARTS; empty if the model has none."""
    return str(found.get(part) or "").rstrip("\n")


def sections(found: JsonObject) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Yield the titles and rows of Ollama's tables that are not empty (Ollama: cmd/cmd.go, showInfo)."""
    capabilities = found.get("capabilities")
    parts = (
        ("Model", _model_rows(found)),
        ("Capabilities", [(str(each), "") for each in capabilities] if isinstance(capabilities, list) else []),
        ("Parameters", [_pair(line) for line in _lines(found, "parameters")]),
        ("System", [(line, "") for line in _lines(found, "system")]),
        ("License", [(line, "") for line in _lines(found, "license")[:_LICENSE_LINES]]),
    )
    yield from ((title, rows) for title, rows in parts if rows)


def _facts(client: ollama.Client, name: str) -> JsonObject:
    """Return the answer of ``/api/show`` as it is: the client's own call drops the system prompt.

    Raises ollama.ResponseError.
    """
    response = client._client.post("/api/show", json={"model": name})
    if response.is_error:
        raise ollama.ResponseError(response.text, response.status_code)
    facts: JsonObject = response.json()
    return facts


def _lines(found: JsonObject, part: str) -> list[str]:
    return [line.strip() for line in part_text(found, part).splitlines() if line.strip()]


def _model_rows(found: JsonObject) -> list[tuple[str, str]]:
    info, details = get_object(found, "model_info"), get_object(found, "details")
    architecture = str(info.get("general.architecture") or details.get("family") or "")
    rows = (
        ("architecture", architecture),
        ("parameters", details.get("parameter_size")),
        ("context length", info.get(f"{architecture}.context_length")),
        ("embedding length", info.get(f"{architecture}.embedding_length")),
        ("quantization", details.get("quantization_level")),
    )
    return [(key, str(value)) for key, value in rows if value]


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition(" ")
    return key, value.strip()
