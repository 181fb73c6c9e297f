"""``contextPolicy: Grow`` on one machine: real runner, real model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.local.served import START, model_file, serving
from tests.support.waiting import until

pytestmark = pytest.mark.process


def test_a_larger_num_ctx_reloads_the_model_once_and_loses_no_request(tmp_path: Path) -> None:
    file = model_file(tmp_path, "tiny", contextLength=256, parallel=1, contextPolicy="Grow", maxContextLength=512)
    with serving(tmp_path, file) as served:

        def generate(num_ctx: int) -> int:
            options = {"num_predict": 2, "temperature": 0.0, "num_ctx": num_ctx}
            assert served.client.generate("tiny", "Hello", options=options).response
            (running,) = served.client.ps().models
            return running.context_length or 0

        assert generate(256) == 256
        with served.stream("tiny", tokens=400) as stream:
            next(stream)
            assert generate(400) == 512
            assert [line["done"] for line in stream][-1], "the old runner has ended it"
        assert [generate(num_ctx) for num_ctx in (256, 4096, 400)] == [512, 512, 512]
        assert len(served.events("started")) == 2
        served.client.generate("tiny", keep_alive=0)
        until(lambda: not served.runners(), START)
        assert generate(64) == 256
