"""Runner status streams: one HTTP stream of ``/activity`` for each runner pod.

- A runner counts as unreachable, and therefore as busy, when its stream has broken, brought something that is not a
  status, or was silent for three heartbeats; its status is withdrawn until a stream delivers the next one.
- Streams are reopened for as long as the pod exists, with pauses that grow until a stream has lasted.
- Whatever a runner sends, the streams of the others go on; responses and the time for each are bounded.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

import aiohttp

from corral_core.base.clock import steady_time
from corral_core.base.json_fields import JsonObject, get_int, get_object
from corral_core.base.json_log import error_location
from corral_core.base.received_json import parse_received_object
from corral_core.contracts.model_metadata import MAX_METADATA_BYTES, ModelMetadata
from corral_core.contracts.runner_status import (
    HEARTBEAT_INTERVAL,
    MAX_STATUS_BYTES,
    RunnerStatus,
    parse_runner_status,
)
from corral_operator import logs
from corral_operator.observe.streams.pod_streams import FollowedPod, PodStreams, require_ok
from corral_operator.observe.streams.runner_info import RunnerInfo

SILENCE_TIMEOUT = 3 * HEARTBEAT_INTERVAL
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_LASTING = 5.0
"""Seconds after which a stream counts as one that works: the next one is reopened after the first pause again."""
_INFO_TIMEOUT = 5.0
_MAX_SLOTS = 1_000_000


class RunnerStatusStreams(PodStreams):
    """``status_changed(uid, status)`` is called with each status, and with None when the runner becomes unreachable.

    ``loaded(uid, info)`` is called once for each runner, after it has loaded. Both are called on the event loop. Times
    of a status are those of ``clock``. A runner that sends nothing for ``silence`` seconds is unreachable.
    """

    def __init__(
        self,
        status_changed: Callable[[str, RunnerStatus | None], None],
        loaded: Callable[[str, RunnerInfo], None],
        *,
        clock: Callable[[], float] = steady_time,
        silence: float = SILENCE_TIMEOUT,
    ) -> None:
        super().__init__("runner status", max_line=MAX_STATUS_BYTES, silence=silence)
        self._status_changed = status_changed
        self._loaded = loaded
        self._clock = clock

    async def _follow(self, uid: str, pod: FollowedPod) -> None:
        runner = _RunnerState(pod)
        pause = _FIRST_PAUSE
        try:
            while True:
                started = time.monotonic()
                await self._read_stream(uid, runner)
                self._status_changed(uid, None)
                if time.monotonic() - started >= _LASTING:
                    pause = _FIRST_PAUSE
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        finally:
            self._status_changed(uid, None)

    async def _read_stream(self, uid: str, runner: _RunnerState) -> None:
        """Read one stream until it ends, whatever ends it."""
        try:
            async for line in self._lines(runner.pod, "/activity?watch=true"):
                status = parse_runner_status(line, self._clock()).steadied(runner.last)
                runner.last = status
                self._status_changed(uid, status)
                if status.loaded and not runner.info_fetched:
                    self._loaded(uid, await self._info(runner.pod, status))
                    runner.info_fetched = True
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            logs.event(
                "runner_status_stream_ended",
                level=logging.DEBUG,
                runner=runner.pod.url,
                error=str(error) or repr(error),
            )
        except ValueError as error:
            runner.report_invalid(str(error))
        except Exception as error:  # of any kind: the stream of this runner is opened again
            logs.event(
                "runner_status_stream_failed", level=logging.ERROR, runner=runner.pod.url, error=error_location(error)
            )

    async def _info(self, pod: FollowedPod, status: RunnerStatus) -> RunnerInfo:
        """Fetch ``/info`` and add the memory sizes of the status. Raises like ``_lines``."""
        async with asyncio.timeout(_INFO_TIMEOUT), self._get(pod, "/info") as response:
            require_ok(response)
            data = parse_received_object(await _read(response, MAX_METADATA_BYTES), limit=MAX_METADATA_BYTES)
        return RunnerInfo(
            metadata=ModelMetadata.from_json(get_object(data, "metadata")),
            parallel=_count(data, "parallel", _MAX_SLOTS),
            context_length=_count(data, "contextLength", 2**31),
            size_bytes=status.size_bytes,
            vram_bytes=status.vram_bytes,
            devices=tuple((device.name, device.total) for device in status.devices),
        )


class _RunnerState:
    """What is known of one runner over its streams. ``info_fetched``: ``/info`` was read."""

    def __init__(self, pod: FollowedPod) -> None:
        self.pod = pod
        self.last: RunnerStatus | None = None
        self.info_fetched = False
        self._invalid = False

    def report_invalid(self, error: str) -> None:
        """Log that the runner sent something invalid; only the first time, since every further stream may repeat it."""
        level = logging.DEBUG if self._invalid else logging.WARNING
        logs.event("runner_status_invalid", level=level, runner=self.pod.url, error=error[:500])
        self._invalid = True


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Read a body of at most ``limit`` bytes. Raises ValueError for a longer one."""
    parts: list[bytes] = []
    async for part in response.content.iter_chunked(64 * 1024):
        parts.append(part)
        limit -= len(part)
        if limit < 0:
            raise ValueError("the response of the runner is too long")
    return b"".join(parts)


def _count(data: JsonObject, name: str, maximum: int) -> int:
    return min(max(get_int(data, name), 0), maximum)
