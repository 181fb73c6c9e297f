"""Pod streams: one HTTP stream of lines for each followed pod.

- A pod that leaves the list, or changes its address, has its stream ended; the subclass decides when an ended
  stream is opened again.
- Pods are not trusted: lines and the time for each are bounded, and redirects, cookies and compression are not followed
  or accepted.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

import aiohttp
from aiohttp.http_exceptions import LineTooLong

from corral_core.contracts.model_identity import IDENTITY_HEADER

RUNNER_PORT = 8080
"""Port on which runners serve requests and their status, and pullers their progress."""


def pod_url(ip: str) -> str:
    """Return the base URL of the runner or the puller in the pod with this address."""
    return f"http://[{ip}]:{RUNNER_PORT}" if ":" in ip else f"http://{ip}:{RUNNER_PORT}"


class FollowedPod(NamedTuple):
    """Base URL of a pod, and the identity of its Model, without which another pod may answer at its address."""

    url: str
    model: str


class PodStreams(ABC):
    """Follows pods; a subclass reads their streams. Used on one event loop.

    ``max_line`` is in bytes, a longer line is an error; ``silence`` is the number of seconds without a line after which
    a stream is one.
    """

    def __init__(self, name: str, *, max_line: int, silence: float) -> None:
        self._name = name
        self._silence = silence
        self._tasks: dict[str, tuple[FollowedPod, asyncio.Task[None]]] = {}
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=2.0, sock_read=silence),
            read_bufsize=max_line // 2,  # a line has at most twice as many bytes
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )

    def follow(self, pods: Mapping[str, FollowedPod]) -> None:
        """Start and end tasks so that there is one for each pod, by its uid."""
        for uid, (pod, task) in list(self._tasks.items()):
            if pods.get(uid) != pod:
                task.cancel()
                del self._tasks[uid]
        for uid, pod in pods.items():
            if uid not in self._tasks:
                task = asyncio.create_task(self._follow(uid, pod), name=f"{self._name} of {pod.url}")
                self._tasks[uid] = (pod, task)

    async def close(self) -> None:
        tasks = [task for _, task in self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks.clear()
        await self._session.close()

    @abstractmethod
    async def _follow(self, uid: str, pod: FollowedPod) -> None:
        """Read streams of the pod until cancelled."""

    async def _lines(self, pod: FollowedPod, path: str) -> AsyncIterator[bytes]:
        """Yield the lines of one stream. Raises ClientError, TimeoutError, OSError, and ValueError for a long line."""
        async with self._get(pod, path) as response:
            require_ok(response)
            while True:
                async with asyncio.timeout(self._silence):
                    try:
                        line = await response.content.readline()
                    except LineTooLong as error:
                        raise ValueError("a line of the pod is too long") from error
                if not line.endswith(b"\n"):
                    return
                yield line

    def _get(self, pod: FollowedPod, path: str) -> aiohttp.client._RequestContextManager:
        return self._session.get(pod.url + path, headers={IDENTITY_HEADER: pod.model}, allow_redirects=False)


def require_ok(response: aiohttp.ClientResponse) -> None:
    """Raise ClientPayloadError if the status is not 200."""
    if response.status != 200:
        raise aiohttp.ClientPayloadError(f"the pod answered {response.status}")
