"""HTTP requests that are answered from a table, for responses that no real server sends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from corral_server.pull.http_requests import RESPONSE_LIMIT, HttpResponse


def response(body: object = b"", *, status: int = 200, headers: Mapping[str, str] | None = None) -> HttpResponse:
    """Return a response; a body that is not bytes is sent as JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpResponse(status, "https://hub.example", dict(headers or {}), data)


@dataclass
class FakeHttp:
    """``answers`` has the responses by ``METHOD path?query``; others are 404. ``asked`` has the headers as well."""

    answers: dict[str, HttpResponse]
    asked: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        limit: int = RESPONSE_LIMIT,
        redirects: bool = True,
        named_by: str = "",
    ) -> HttpResponse:
        assert url.startswith("https://hub.example/"), url
        assert body is None
        assert limit <= RESPONSE_LIMIT
        self.asked.append((f"{method} {url.removeprefix('https://hub.example')}", dict(headers or {})))
        return self.answers.get(self.asked[-1][0], response(status=404))
