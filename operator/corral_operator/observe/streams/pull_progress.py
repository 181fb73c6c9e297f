"""Pull progress streams: one HTTP stream of ``/progress`` for each puller pod that runs.

- Streams are reopened for as long as the pod runs, with a pause between. A progress that is not known is only missing
  from the status; nothing is decided by it.
- Whatever a puller sends, the streams of the others go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import aiohttp

from corral_core.base.json_log import error_location
from corral_core.contracts.pull_status import (
    HEARTBEAT_INTERVAL,
    MAX_PULL_STATUS_BYTES,
    PullStatus,
    parse_pull_status,
)
from corral_operator import logs
from corral_operator.observe.streams.pod_streams import FollowedPod, PodStreams

SILENCE_TIMEOUT = 3 * HEARTBEAT_INTERVAL
_PAUSE = 1.0
"""Seconds between two streams of a puller."""


class PullProgressStreams(PodStreams):
    """``changed(uid, status)`` is called on the event loop with each status of the puller in the pod with this uid."""

    def __init__(self, changed: Callable[[str, PullStatus], None]) -> None:
        super().__init__("pull progress", max_line=MAX_PULL_STATUS_BYTES, silence=SILENCE_TIMEOUT)
        self._changed = changed

    async def _follow(self, uid: str, pod: FollowedPod) -> None:
        while True:
            try:
                async for line in self._lines(pod, "/progress?watch=true"):
                    self._changed(uid, parse_pull_status(line))
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                text = str(error)[:500] or repr(error)
                logs.event("pull_progress_stream_ended", level=logging.DEBUG, puller=pod.url, error=text)
            except Exception as error:  # of any kind: the stream of this puller is opened again
                where = error_location(error)
                logs.event("pull_progress_stream_failed", level=logging.ERROR, puller=pod.url, error=where)
            await asyncio.sleep(_PAUSE)
