"""Status of the runners while a page is open, with the tokens that each generates per second.

A runner's status has the number of tokens that it has generated; the difference of two of them over a few seconds is
the speed. At most ``MAX_RUNNERS`` runners are followed, each by one stream.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

from corral_core.base.clock import steady_time
from corral_core.base.json_fields import JsonObject
from corral_core.contracts.runner_status import HEARTBEAT_INTERVAL, MAX_STATUS_BYTES, RunnerStatus
from corral_server.gateway.directory.directory import Endpoint
from corral_server.gateway.upstream.json_lines import JsonLineStreams, Source

MAX_RUNNERS: Final = 256
_INTERVAL: Final = 1
"""Seconds between two statuses of a runner that generates."""
_WINDOW: Final = 4.0
"""Seconds over which the speed is averaged."""
_SHORTEST: Final = 0.2
"""Seconds between two statuses from which a speed is computed."""
_TIMEOUT: Final = 3 * HEARTBEAT_INTERVAL


class RunnerSample:
    """The last status of one runner. Times are of ``steady_time``.

    ``tokens_per_second`` is None while it is not known: before the second status, or if the runner counts no tokens.
    """

    def __init__(self, status: RunnerStatus, now: float) -> None:
        self.status = status
        self.tokens_per_second: float | None = None
        self._counts: deque[tuple[float, int]] = deque()
        self.update(status, now)

    def update(self, status: RunnerStatus, now: float) -> None:
        self.status = status.steadied(self.status)
        tokens = status.generated_tokens
        if tokens is None:
            self.tokens_per_second = None
            return
        counts = self._counts
        if not status.busy:
            self.tokens_per_second = 0.0
            counts.clear()
            return
        if counts and counts[-1][1] > tokens:
            counts.clear()  # the model was loaded again
        counts.append((now, tokens))
        while len(counts) > 2 and counts[1][0] <= now - _WINDOW:
            counts.popleft()
        if now - counts[0][0] >= _SHORTEST:
            self.tokens_per_second = (tokens - counts[0][1]) / (now - counts[0][0])


class RunnerSamples:
    """Follows runners by their endpoints. Its owner calls ``close``, on the event loop."""

    def __init__(self) -> None:
        self._samples: dict[str, RunnerSample] = {}
        self._streams = JsonLineStreams(self._received, read_timeout=_TIMEOUT)

    def get(self, endpoint: Endpoint) -> RunnerSample | None:
        return self._samples.get(endpoint.id)

    def follow(self, endpoints: Iterable[Endpoint]) -> None:
        """Follow the first ``MAX_RUNNERS`` of these runners, and no other ones."""
        sources = {endpoint.id: _source(endpoint) for endpoint in islice(endpoints, MAX_RUNNERS)}
        self._samples = {name: sample for name, sample in self._samples.items() if name in sources}
        self._streams.follow(sources)

    async def close(self) -> None:
        self._samples.clear()
        await self._streams.close()

    def _received(self, name: str, line: JsonObject | None) -> None:
        """Raises ValueError for an invalid line."""
        if line is None:
            self._samples.pop(name, None)
            return
        now = steady_time()
        status, sample = RunnerStatus.from_json(line, now), self._samples.get(name)
        if sample is None:
            self._samples[name] = RunnerSample(status, now)
        else:
            sample.update(status, now)


def _source(endpoint: Endpoint) -> Source:
    path = f"/activity?watch=true&interval={_INTERVAL}"
    return Source(endpoint.host, endpoint.port, path, model=endpoint.model, line_limit=MAX_STATUS_BYTES)
