"""Suffixes of model names that select Ollama's cloud (``internal/modelref/modelref.go`` in Ollama).

The cloud is disabled here, as with OLLAMA_NO_CLOUD=1. A Model may have such a name: it is looked up first.
"""

from __future__ import annotations

from corral_server.wire.errors import ApiError

MODEL, DETAILS = "remote model is unavailable", "remote model details are unavailable"
_SOURCES = (":cloud", ":local")


def cloud_disabled(what: str) -> ApiError:
    return ApiError(403, f"ollama cloud is disabled: {what}")


def is_cloud_name(name: str) -> bool:
    """Return whether the name ends with ``:cloud`` or has a tag that ends with ``-cloud``."""
    _, colon, tag = name.lower().rpartition(":")
    return bool(colon) and (tag == "cloud" or (tag.endswith("-cloud") and "/" not in tag))


def conflicting_sources(name: str) -> str:
    """Return Ollama's error text for a name with two of the suffixes; empty for any other name."""
    base = name.lower()[: -len(":cloud")]
    if not name.lower().endswith(_SOURCES) or not (base.endswith(":local") or is_cloud_name(base)):
        return ""
    return f'use either :local or :cloud, not both: "{name}"'
