"""``contextPolicy: Grow`` through all processes on a real API server."""

from __future__ import annotations

import pytest

from tests.cluster.api import at
from tests.cluster.installation import POLL_INTERVAL, START_TIMEOUT, Installation
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]


def test_a_larger_num_ctx_replaces_the_runner_until_it_is_unloaded(corral: Installation) -> None:
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("tale", contextLength=256, parallel=1, contextPolicy="Grow", maxContextLength=512)
    corral.wait_phase("tale", "Idle")

    def wait_placed(length: int) -> None:
        def lengths() -> list[object]:
            status = corral.model("tale")
            return [at(status, "status", "placement", name) for name in ("contextLength", "maxContextLength")]

        until(lambda: lengths() == [length, 512], 30, what=f"a context of {length}", interval=POLL_INTERVAL)

    with gateway.client(timeout=START_TIMEOUT) as client:
        for num_ctx, length in ((256, 256), (400, 512), (4096, 512), (100, 512)):
            options = {"num_predict": 2, "num_ctx": num_ctx}
            assert client.generate("tale", "Hello", options=options).response
            wait_placed(length)
        assert client.generate("tale", keep_alive=0).done_reason == "unload"
    corral.wait_replicas("tale", 0, 15)
    corral.wait_gone("tale")
    wait_placed(256)
