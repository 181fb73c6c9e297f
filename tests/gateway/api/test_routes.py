"""Routes: cleaned paths, and redirects that stay on this host."""

from __future__ import annotations

import pytest

from corral_server.gateway.api.routes import Routes
from corral_server.gateway.messages import Request, Response


async def _handler(request: Request) -> Response:
    return Response(200)


ROUTES = Routes({"/": {"GET": _handler}, "/api/tags": {"GET": _handler}, "/v1/models/*": {"GET": _handler}})


@pytest.mark.parametrize(
    ("method", "path", "status", "location"),
    [
        ("GET", "//", 307, b"/"),
        ("POST", "//api/chat", 307, b"/api/chat"),
        ("GET", "/api/../api/./tags/", 307, b"/api/tags/"),
        ("GET", "/api/tags/", 301, b"/api/tags"),
        ("GET", "/..", 307, b"/"),
        ("GET", "//evil.example/x", 307, b"/evil.example/x"),
        ("GET", "//a\r\nb: \u00e9", 307, b"/a%0D%0Ab:%20%C3%A9"),
    ],
)
def test_a_redirect_to_the_cleaned_path_stays_on_this_host(
    method: str, path: str, status: int, location: bytes
) -> None:
    answer = ROUTES.find(method, path)
    assert isinstance(answer, Response)
    assert (answer.status, dict(answer.headers)[b"location"]) == (status, location)


def test_a_redirect_keeps_the_query() -> None:
    answer = ROUTES.find("GET", "/api//tags", b"a=<b>")
    assert isinstance(answer, Response)
    assert dict(answer.headers)[b"location"] == b"/api/tags?a=<b>"
    assert b"<b>" not in answer.body


@pytest.mark.parametrize("path", ["/", "/api/tags", "/v1/models/ns/x:1b"])
def test_a_clean_path_finds_its_handler(path: str) -> None:
    assert ROUTES.find("GET", path) is _handler
