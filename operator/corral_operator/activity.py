"""What the runners say of themselves: one stream of activity for each runner pod.

A runner that was silent for three heartbeats, or whose stream broke, cannot be asked: its activity is withdrawn, and it
counts as busy until it is heard again. Streams are opened again and again, with growing pauses, while the pod is there.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping

import aiohttp

from corral_core.activity import HEARTBEAT, Activity
from corral_core.facts import ModelFacts
from corral_core.jsonfields import integer, mapping
from corral_operator import logs
from corral_operator.observe import RunnerInfo

SILENCE = 3 * HEARTBEAT
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_LINE_LIMIT = 1 << 16


class Streams:
    """``heard(uid, activity)`` is called at every change, None when the runner cannot be asked; ``told(uid, info)``
    once for each runner, after it has loaded. Both are called on the event loop.
    """

    def __init__(
        self,
        heard: Callable[[str, Activity | None], None],
        told: Callable[[str, RunnerInfo], None],
        *,
        port: int = 8080,
    ) -> None:
        self._heard = heard
        self._told = told
        self._port = port
        self._tasks: dict[str, tuple[str, asyncio.Task[None]]] = {}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=2.0, sock_read=SILENCE)
        self._session = aiohttp.ClientSession(timeout=timeout, read_bufsize=_LINE_LIMIT)

    def follow(self, runners: Mapping[str, str]) -> None:
        """The runners there are: pod uid to pod address. Opens and ends streams accordingly."""
        for uid, (address, task) in list(self._tasks.items()):
            if runners.get(uid) != address:
                task.cancel()
                del self._tasks[uid]
        for uid, address in runners.items():
            if uid not in self._tasks:
                task = asyncio.create_task(self._follow(uid, address), name=f"activity of {address}")
                self._tasks[uid] = (address, task)

    async def close(self) -> None:
        tasks = [task for _, task in self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        await self._session.close()

    async def _follow(self, uid: str, address: str) -> None:
        base = f"http://[{address}]:{self._port}" if ":" in address else f"http://{address}:{self._port}"
        runner = _Runner(self._session, base)
        pause = _FIRST_PAUSE
        try:
            while True:
                if await self._listen(uid, runner):
                    pause = _FIRST_PAUSE
                self._heard(uid, None)
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        finally:
            self._heard(uid, None)

    async def _listen(self, uid: str, runner: _Runner) -> bool:
        """One stream until it ends; whether anything was heard on it."""
        heard = False
        try:
            async with runner.stream() as response:
                async for line in response.content:
                    activity = Activity.from_json(mapping(json.loads(line)))
                    heard = True
                    self._heard(uid, activity)
                    if activity.loaded and not runner.asked:
                        self._told(uid, await runner.info(activity))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            logs.event(
                "activity_stream_ended", level=logging.DEBUG, runner=runner.base, error=str(error) or repr(error)
            )
        return heard


class _Runner:
    """The HTTP interface of one runner. ``asked`` is set once it has told of its model."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self.base = base
        self.asked = False
        self._session = session

    def stream(self) -> aiohttp.client._RequestContextManager:
        return self._session.get(f"{self.base}/activity?watch=true", raise_for_status=True)

    async def info(self, loaded: Activity) -> RunnerInfo:
        """Raises ClientError, TimeoutError or ValueError."""
        timeout = aiohttp.ClientTimeout(total=5.0)
        async with self._session.get(f"{self.base}/info", raise_for_status=True, timeout=timeout) as response:
            answer = await response.json(content_type=None)
        info = RunnerInfo(
            facts=ModelFacts.from_json(mapping(answer, "facts")),
            parallel=integer(answer, "parallel"),
            context_length=integer(answer, "contextLength"),
            size_bytes=loaded.size_bytes,
            vram_bytes=loaded.vram_bytes,
            devices=tuple((device.name, device.total) for device in loaded.devices),
        )
        self.asked = True
        return info
