"""Files of the page: caching, security headers, and what needs no API key."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from corral_server.gateway.ui import static_files
from tests.gateway.test_keys import ALICE, bearer, key_file
from tests.support.gateway import MemoryDirectory, running_gateway

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a built page."""
    folder = tmp_path / "static"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<!doctype html><title>Models</title>")
    (folder / "assets/app-1a2b.js").write_text("export {}")
    (tmp_path / "secret.txt").write_text("not a file of the page")
    monkeypatch.setattr(static_files, "FOLDER", folder)
    return folder


def assert_secured(response: httpx.Response) -> None:
    assert response.headers["content-security-policy"] == POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"


async def test_the_index_is_checked_at_every_visit(built: Path) -> None:
    async with running_gateway(MemoryDirectory()) as gateway:
        index = await gateway.http.get("/ui/")
        assert (index.status_code, index.text) == (200, "<!doctype html><title>Models</title>")
        assert index.headers["content-type"] == "text/html; charset=utf-8"
        assert index.headers["cache-control"] == "no-cache"
        assert_secured(index)
        again = await gateway.http.get("/ui/", headers={"if-none-match": index.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert "content-length" not in again.headers
        changed = await gateway.http.get("/ui/", headers={"if-none-match": '"other"'})
        assert changed.status_code == 200


async def test_assets_are_immutable_and_have_their_types(built: Path) -> None:
    async with running_gateway(MemoryDirectory()) as gateway:
        script = await gateway.http.get("/ui/assets/app-1a2b.js")
        assert (script.status_code, script.text) == (200, "export {}")
        assert script.headers["content-type"] == "text/javascript; charset=utf-8"
        assert script.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert_secured(script)
        head = await gateway.http.head("/ui/assets/app-1a2b.js")
        assert (head.content, head.headers["content-length"]) == (b"", "9")


@pytest.mark.parametrize("path", ["assets/none.js", "assets/..%2f..%2fsecret.txt", "assets/%2e%2e/%2e%2e/secret.txt"])
async def test_only_files_of_the_page_are_served(built: Path, path: str) -> None:
    async with running_gateway(MemoryDirectory()) as gateway:
        response = await gateway.http.get(f"/ui/{path}", follow_redirects=True)
        assert response.status_code == 404
        assert "not a file" not in response.text


@pytest.mark.parametrize("prefix", ["", "/llm"])
async def test_the_redirect_holds_behind_a_path_prefix(built: Path, prefix: str) -> None:
    async with running_gateway(MemoryDirectory(), path_prefix=prefix) as gateway:
        response = await gateway.http.get(f"{prefix}/ui", follow_redirects=True)
        assert response.status_code == 200
        assert response.url.path == f"{prefix}/ui/"
        assert [each.headers["location"] for each in response.history] == ["ui/"]


async def test_a_page_that_is_not_built_says_how_to_build_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_files, "FOLDER", tmp_path / "none")
    async with running_gateway(MemoryDirectory()) as gateway:
        response = await gateway.http.get("/ui/")
        assert response.status_code == 404
        assert "make ui" in response.text
        assert (await gateway.http.get("/")).text == "Ollama is running"


async def test_the_files_need_no_key_and_the_events_do(built: Path, tmp_path: Path) -> None:
    async with running_gateway(MemoryDirectory(), keys_file=key_file(tmp_path)) as gateway:
        for path in ("/ui", "/ui/", "/ui/assets/app-1a2b.js"):
            assert (await gateway.http.get(path)).status_code in (200, 308)
        for path in ("/ui/events", "/ui/other", "/ui/assets/../events"):
            refused = await gateway.http.get(path, follow_redirects=True)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"] == "Bearer"
        async with gateway.http.stream("GET", "/ui/events", headers=bearer(ALICE)) as stream:
            assert stream.status_code == 200


async def test_the_page_can_be_switched_off(built: Path) -> None:
    async with running_gateway(MemoryDirectory(), ui=False) as gateway:
        for path in ("/ui", "/ui/", "/ui/assets/app-1a2b.js", "/ui/events"):
            assert (await gateway.http.get(path)).status_code == 404
