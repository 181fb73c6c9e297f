"""Runner status stream of one runner, reopened whenever it breaks.

A runner without a line for three heartbeats is unreachable: its status is None until the next line.
"""

from __future__ import annotations

from collections.abc import Callable

from corral_core.base.clock import steady_time
from corral_core.base.json_fields import JsonObject
from corral_core.contracts.runner_status import HEARTBEAT_INTERVAL, MAX_STATUS_BYTES, RunnerStatus
from corral_server.gateway.upstream.json_lines import FIRST_PAUSE, Source, follow_json_lines

STATUS_TIMEOUT = 3 * HEARTBEAT_INTERVAL
"""Seconds without a line after which the runner counts as unreachable."""


async def follow_runner_status(
    port: int,
    model: str,
    on_status: Callable[[RunnerStatus | None], None],
    *,
    timeout: float = STATUS_TIMEOUT,
) -> None:
    """Call ``on_status`` with each status of the runner at this port of the loopback interface, until cancelled.

    ``model`` is the identity of its Model.
    """
    last: RunnerStatus | None = None

    def on_object(data: JsonObject | None) -> None:
        nonlocal last
        if data is None:
            on_status(None)
        else:
            last = RunnerStatus.from_json(data, steady_time()).steadied(last)
            on_status(last)

    source = Source("127.0.0.1", port, "/activity?watch=true", model=model, line_limit=MAX_STATUS_BYTES)
    await follow_json_lines(source, on_object, read_timeout=timeout, longest_pause=FIRST_PAUSE)
