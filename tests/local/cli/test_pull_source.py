"""``corral pull`` of a source whose content was wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_server.local.cli.pull_source import pull_source
from corral_server.pull.errors import ContentError
from tests.support.ollama_registry import ollama_registry, padded_weights
from tests.support.tiny_model import write_tiny_model

SIZE = 2 * 2**20


def test_a_pull_by_hand_downloads_wrong_content_again_at_once(tmp_path: Path) -> None:
    data = padded_weights(write_tiny_model(tmp_path), SIZE)
    with ollama_registry() as registry:
        blob = f"sha256:{registry.push(data)}"
        registry.blobs[blob] = data[:-1] + b"x"
        environ = {"OLLAMA_MODELS": str(tmp_path / "models"), "CORRAL_PLAIN_HTTP_HOSTS": registry.host}
        for _ in range(2):
            sent = registry.sent
            with pytest.raises(ContentError, match="twice"):
                pull_source(registry.uri(), environ)
            assert registry.sent - sent >= 2 * SIZE
        registry.blobs[blob] = data
        assert pull_source(registry.uri(), environ) == 0
