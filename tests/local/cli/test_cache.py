"""``corral cache``: failed downloads of a source that the store does not have."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_server.local.cli.cache import NotStored, remove_from_cache
from corral_server.local.pulls.config import pull_config
from corral_server.pull.errors import ContentError
from corral_server.pull.failures import FailedDownloads

URI = "hf://org/model"


def test_a_source_whose_download_failed_is_removed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"OLLAMA_MODELS": str(tmp_path)}
    failures = FailedDownloads(pull_config(environ).store)
    failures.record(URI, "1", error=ContentError("wrong digest"))
    assert remove_from_cache(environ, [URI]) == 0
    failures.check(URI, "1")
    assert "removed 0 sources" in capsys.readouterr().out
    with pytest.raises(NotStored, match="is not in"):
        remove_from_cache(environ, [URI])
