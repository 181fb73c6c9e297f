"""Twenty seconds of bench/soak_gateway.py: a mixed load leaves nothing behind while Models change."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import cast

import pytest

from bench.soak_gateway import soak


@pytest.mark.process
@pytest.mark.slow
def test_a_mixed_load_leaves_nothing_behind_while_models_change() -> None:
    result = asyncio.run(soak(20.0, 16))
    assert result["left"] == {}
    kinds: Counter[str] = Counter()
    for outcome, number in cast(dict[str, int], result["outcomes"]).items():
        kinds[outcome.partition(": ")[2]] += number
    assert {"200", "400", "404", "500", "left"} <= kinds.keys()
