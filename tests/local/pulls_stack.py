"""``corral serve`` with a store of its own and a registry of the test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from corral_server.pull.store import WeightsStore
from corral_server.pull.stored import stored_partials
from tests.local.served import Served, serving
from tests.support.ollama_registry import OllamaRegistry


def settings(tmp_path: Path, registry: OllamaRegistry, **more: str) -> dict[str, str]:
    """Return the environment of a user with an empty home whose registry is that of the test."""
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    return {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "CORRAL_PLAIN_HTTP_HOSTS": registry.host,
        "HTTPS_PROXY": "",
        "https_proxy": "",
        **more,
    }


def store(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "corral" / "models"


@contextmanager
def serving_from(tmp_path: Path, registry: OllamaRegistry, *paths: Path, **more: str) -> Iterator[Served]:
    with serving(tmp_path, *paths, environment=settings(tmp_path, registry, **more)) as served:
        yield served


def saved_bytes(folder: Path) -> int:
    """Return the bytes that the saved states of downloads in a store have."""
    return sum(partial.completed for partial in stored_partials(WeightsStore(folder)))
