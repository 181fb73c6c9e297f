"""Twenty seconds of the soak: nothing is left of a mixed load while models come and go."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import cast

import pytest

from bench.soak_gateway import soak


@pytest.mark.process
@pytest.mark.slow
def test_nothing_is_left_of_a_mixed_load_while_models_come_and_go() -> None:
    result = asyncio.run(soak(20.0, 16))
    assert result["left"] == {}
    kinds: Counter[str] = Counter()
    for outcome, number in cast(dict[str, int], result["outcomes"]).items():
        kinds[outcome.partition(": ")[2]] += number
    assert {"200", "400", "404", "500", "left"} <= kinds.keys()
