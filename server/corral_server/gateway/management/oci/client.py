"""Requests to one repository of a registry, with its authentication.

- Nothing is sent before the registry has answered 401; its challenge decides between Basic and a token of its token
  server. A token that expires during an upload shows as a 401, which is answered again.
- The installation names the registry, so it may name its token server: one with TLS, unless it has no TLS itself.
- Redirects are not followed, and responses are small: larger ones are cut off.

Protocols: https://github.com/opencontainers/distribution-spec/blob/main/spec.md and
https://distribution.github.io/distribution/spec/auth/token/.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode, urlsplit

import aiohttp

from corral_core.base.json_fields import get_str
from corral_core.base.received_json import parse_received_object
from corral_server.gateway.management.blobs import BlobRefused
from corral_server.gateway.management.oci.repository import BlobRepository
from corral_server.registries.challenges import Challenge, parse_challenges
from corral_server.registries.docker_config import NO_LOGIN, Login
from corral_server.registries.error_messages import error_message

REQUEST_TIMEOUT: Final = 300.0
"""Seconds for one request. A registry may copy a whole blob before it answers the last request of an upload."""
RESPONSE_LIMIT: Final = 256 * 1024
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,65536}")


@dataclass(frozen=True, slots=True)
class RegistryResponse:
    """``headers`` have lower-case names."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class RegistryClient:
    """``send`` may raise BlobRefused: 502 for what the administrator must change, 503 for what a retry may solve."""

    def __init__(self, session: aiohttp.ClientSession, repository: BlobRepository, login: Login) -> None:
        self._session = session
        self._repository = repository
        self._login = login
        self._authorization: dict[str, str] = {}

    async def send(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> RegistryResponse:
        """Return the response, whatever its status, except 401 after a login, 429 and 5xx."""
        given = headers or {}
        response = await self._exchange(method, url, headers={**given, **self._authorization}, body=body)
        if response.status == 401:
            await self._authenticate(response.headers.get("www-authenticate", ""))
            response = await self._exchange(method, url, headers={**given, **self._authorization}, body=body)
        if response.status in (401, 403):
            raise self._denied(response)
        if response.status == 429 or response.status >= 500:
            raise self.failure(response, "the request")
        return response

    def failure(self, response: RegistryResponse, what: str) -> BlobRefused:
        """Return the error for a response that is not the expected one."""
        busy = response.status == 429 or response.status >= 500
        text = f"the registry {self._repository.registry} answered {what} with status {response.status}"
        message = error_message(response.body)
        hint = "; please try again" if busy else ""
        return BlobRefused(503 if busy else 502, f"{text}{f' ({message})' if message else ''}{hint}")

    async def _exchange(self, method: str, url: str, *, headers: Mapping[str, str], body: bytes) -> RegistryResponse:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT, sock_connect=15.0)
        data = io.BytesIO(body) if body else None  # aiohttp sends a file in parts, so that other requests go on
        try:
            async with self._session.request(
                method, url, headers=headers, data=data, timeout=timeout, allow_redirects=False
            ) as response:
                lower = {name.lower(): value for name, value in response.headers.items()}
                return RegistryResponse(response.status, lower, await _read(response.content))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            registry, reason = self._repository.registry, str(error) or type(error).__name__
            raise BlobRefused(503, f"the registry {registry} cannot be reached: {reason[:300]}") from None

    async def _authenticate(self, header: str) -> None:
        challenges = {challenge.scheme: challenge for challenge in reversed(parse_challenges(header))}
        if "bearer" in challenges:
            self._authorization = {"Authorization": f"Bearer {await self._token(challenges['bearer'])}"}
        elif "basic" in challenges:
            self._authorization = self._basic()

    async def _token(self, challenge: Challenge) -> str:
        realm, service = (challenge.parameters.get(name, "") for name in ("realm", "service"))
        if urlsplit(realm).scheme not in {"https", self._repository.scheme}:
            raise BlobRefused(502, f"the registry {self._repository.registry} names no valid URL of a token server")
        fields = {"service": service, "scope": f"repository:{self._repository.name}:pull,push"}
        if self._login.identity_token:
            refresh = {
                "grant_type": "refresh_token",
                "client_id": "corral",
                "refresh_token": self._login.identity_token,
            }
            form = {"Content-Type": "application/x-www-form-urlencoded"}
            response = await self._exchange("POST", realm, headers=form, body=urlencode(fields | refresh).encode())
        else:
            url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(fields)}"
            response = await self._exchange("GET", url, headers=self._basic(), body=b"")
        if response.status in (401, 403):
            raise self._denied(response)
        token = _token_in(response.body) if response.status == 200 else ""
        if not token:
            raise self.failure(response, "the request for a token")
        return token

    def _basic(self) -> dict[str, str]:
        if not self._login.username:
            return {}
        pair = f"{self._login.username}:{self._login.password}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}

    def _denied(self, response: RegistryResponse) -> BlobRefused:
        hint = "check that its login may push" if self._login != NO_LOGIN else "it needs a login that may push"
        message = error_message(response.body)
        return BlobRefused(
            502,
            f"the registry {self._repository.registry} denied access to {self._repository.name}"
            f"{f' ({message})' if message else ''}: ask an administrator; {hint} (chart: models.blobs.secret)",
        )


def _token_in(body: bytes) -> str:
    try:
        data = parse_received_object(body, limit=RESPONSE_LIMIT)
    except ValueError:
        return ""
    token = get_str(data, "token") or get_str(data, "access_token")
    return token if _TOKEN.fullmatch(token) else ""


async def _read(content: aiohttp.StreamReader) -> bytes:
    """Return the first bytes of a body, at most RESPONSE_LIMIT."""
    body = b""
    while len(body) < RESPONSE_LIMIT and (piece := await content.read(RESPONSE_LIMIT - len(body))):
        body += piece
    return body
