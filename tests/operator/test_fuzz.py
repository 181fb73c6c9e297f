"""Odd objects and messages stop neither operator nor gateway; ``bench/fuzz_operator.py`` runs many more cases."""

from __future__ import annotations

import pytest

from tests.support.fuzz_objects import Corpus
from tests.support.fuzz_operator import ObjectFuzzer

CASES = 400


@pytest.mark.slow
async def test_odd_objects_and_messages_concern_nothing_else() -> None:
    fuzz = ObjectFuzzer(Corpus.generate(7, size=40), 7)
    await fuzz.start()
    try:
        for number in range(CASES):
            await fuzz.run(number)
    finally:
        await fuzz.close()
    assert fuzz.internal_errors == 0
    assert min(fuzz.counts[kind] for kind in ("models", "endpoint slices", "inspector messages", "invalid lines")) > 10
