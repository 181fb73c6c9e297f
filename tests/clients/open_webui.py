"""What the backend of Open WebUI requires of the responses of a connection, by its version 0.12.4 (PyPI).

https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/routers/ollama.py (send_get_request,
send_request) and its routers/openai.py: JSON is read only if the Content-Type says so, a failure must have a member
``error``, and a stream is read line by line.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from tests.local.served import START

T = TypeVar("T")
HEADERS = {
    "Content-Type": "application/json",
    "Authorization": "Bearer sk-none",
    "X-OpenWebUI-User-Name": "J%C3%B6rg Doe",
    "X-OpenWebUI-User-Id": "2f1c",
    "X-OpenWebUI-User-Email": "joerg@example.com",
    "X-OpenWebUI-User-Role": "admin",
    "X-OpenWebUI-Auth-Type": "jwt",
    "X-OpenWebUI-Chat-Id": "91d0",
}
"""With ENABLE_FORWARD_USER_INFO_HEADERS; without it only the first two.

https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/utils/headers.py (get_headers_and_cookies)
"""
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    body: object = None


class Refused(Exception):
    """A response with an error status; ``error`` is the member ``error`` of its JSON."""

    def __init__(self, status: int, error: object) -> None:
        super().__init__(status, error)
        self.status, self.error = status, error


class Connection:
    def __init__(self, url: str) -> None:
        self._url = url

    def done(self, request: Request) -> None:
        """Send a request of whose response only the status is used."""
        self._send(request, aiohttp.ClientResponse.read)

    def json(self, request: Request) -> Any:
        return self._send(request, aiohttp.ClientResponse.json)

    def lines(self, request: Request) -> list[dict[str, Any]]:
        """Return the objects of a stream of Ollama's API."""

        async def read(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
            return [json.loads(line) async for line in response.content]

        return self._send(request, read)

    def events(self, request: Request) -> list[str]:
        """Return what follows ``data: `` in a stream of OpenAI's API."""

        async def read(response: aiohttp.ClientResponse) -> list[str]:
            assert "text/event-stream" in response.headers["Content-Type"]
            lines = [line.decode().rstrip("\n") async for line in response.content]
            return [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]

        return self._send(request, read)

    def upload(self, path: str, data: bytes) -> None:
        """Send a file in chunks with its length.

        https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/routers/ollama.py (upload_model)
        """

        async def chunks() -> AsyncIterator[bytes]:
            for start in range(0, len(data), _CHUNK):
                yield data[start : start + _CHUNK]

        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(len(data))}
        asyncio.run(self._answer("POST", path, chunks(), headers, aiohttp.ClientResponse.read))

    def _send(self, request: Request, read: Callable[[aiohttp.ClientResponse], Awaitable[T]]) -> T:
        body = None if request.body is None else json.dumps(request.body).encode()
        return asyncio.run(self._answer(request.method, request.path, body, {}, read))

    async def _answer(
        self,
        method: str,
        path: str,
        body: object,
        headers: dict[str, str],
        read: Callable[[aiohttp.ClientResponse], Awaitable[T]],
    ) -> T:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=START)) as session,
            session.request(method, self._url + path, data=body, headers=HEADERS | headers) as response,
        ):
            if not response.ok:
                raise Refused(response.status, (await response.json())["error"])
            return await read(response)
