"""Settings of the network in local mode: they are those of the user's shell, and matter to pulls alone."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from corral_core.base.errors import CorralError
from corral_server.local.pulls.config import PullConfig
from corral_server.local.pulls.sources import LocalSources


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HTTPS_PROXY", "socks5h://127.0.0.1:1080"),
        ("no_proxy", "10.0.0.0/99"),
        ("CORRAL_CA_BUNDLE", "/missing.pem"),
        ("AWS_PROFILE", "two\nlines"),
    ],
)
def test_a_variable_that_is_not_valid_stops_pulls_alone(tmp_path: Path, name: str, value: str) -> None:
    sources = LocalSources(PullConfig(tmp_path, environment={name: value}))
    with pytest.raises(CorralError, match=name.upper()):
        sources.puller(threading.Event()).resolve("https://weights.test/a.gguf")
