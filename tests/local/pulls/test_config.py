"""Where the store is, and which directory of Ollama is read."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_server.local.pulls.config import pull_config


def ollama_directory(path: Path) -> Path:
    for name in ("manifests", "blobs"):
        (path / name).mkdir(parents=True)
    return path


def test_the_store_is_in_the_users_cache_directory(tmp_path: Path) -> None:
    config = pull_config({"HOME": str(tmp_path)})
    assert (config.store, config.ollama, config.also_read) == (tmp_path / ".cache" / "corral" / "models", None, ())
    cache = tmp_path / "other"
    moved = pull_config({"HOME": str(tmp_path), "XDG_CACHE_HOME": str(cache)})
    assert moved.store == cache / "corral" / "models"


def test_a_relative_cache_directory_is_ignored_as_the_specification_says(tmp_path: Path) -> None:
    config = pull_config({"HOME": str(tmp_path), "XDG_CACHE_HOME": "cache"})
    assert config.store == tmp_path / ".cache" / "corral" / "models"


def test_ollamas_own_directory_is_read_if_it_exists(tmp_path: Path) -> None:
    models = ollama_directory(tmp_path / ".ollama" / "models")
    config = pull_config({"HOME": str(tmp_path)})
    assert (config.ollama, config.also_read) == (models, (models / "blobs",))


@pytest.mark.parametrize("exists", [True, False])
def test_ollama_models_moves_the_store_into_a_folder_of_its_own(tmp_path: Path, exists: bool) -> None:
    models = tmp_path / "models"
    if exists:
        ollama_directory(models)
    config = pull_config({"HOME": str(tmp_path), "OLLAMA_MODELS": str(models)})
    assert config.store == models / "corral"
    assert config.ollama == (models if exists else None)
