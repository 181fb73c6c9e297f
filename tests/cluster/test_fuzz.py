"""Models, statuses and messages that a real API server admits stop neither operator nor gateway."""

from __future__ import annotations

import pytest

from tests.cluster.fuzz_api_server import APIServerFuzzer
from tests.cluster.installation import Installation
from tests.support.fuzz_objects import Corpus

CASES = 150

pytestmark = [pytest.mark.cluster, pytest.mark.slow]


def test_odd_models_and_statuses_stop_no_process(corral: Installation) -> None:
    fuzz = APIServerFuzzer(corral, Corpus.generate(7, size=40), 7)
    fuzz.start()
    for number in range(1, CASES):
        fuzz.run(number)
    fuzz.run(0)
    assert fuzz.counts["requests"] == 2
    assert fuzz.counts["put admitted"] > 10, fuzz.counts
    assert fuzz.counts["set_status admitted"] > 3, fuzz.counts
