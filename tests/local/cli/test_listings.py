from __future__ import annotations

from datetime import UTC, datetime, timedelta

import ollama
import pytest

from corral_server.local.cli.listings import processor, until

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("size", "vram", "text"), [(100, 0, "100% CPU"), (100, 100, "100% GPU"), (100, 75, "25%/75% CPU/GPU")]
)
def test_processor_follows_from_vram(size: int, vram: int, text: str) -> None:
    assert processor(size, vram) == text


@pytest.mark.parametrize(
    ("left", "text"),
    [
        (timedelta(days=365 * 292), "Forever"),
        (timedelta(seconds=-1), "Stopping..."),
        (timedelta(seconds=0.5), "Less than a second from now"),
        (timedelta(seconds=1), "1 second from now"),
        (timedelta(minutes=4, seconds=59), "4 minutes from now"),
        (timedelta(hours=2), "2 hours from now"),
    ],
)
def test_until_is_the_remaining_time(left: timedelta, text: str) -> None:
    model = ollama.ProcessResponse.Model(expires_at=NOW + left)
    assert until(model, NOW) == text
