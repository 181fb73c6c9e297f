from __future__ import annotations

from collections.abc import Callable

import pytest

from corral_core.base.errors import SourceError
from corral_server.pull.credentials import NO_CREDENTIALS, Credentials
from corral_server.pull.distribution.client import RepositoryClient
from corral_server.pull.distribution.manifests import Descriptor
from corral_server.pull.distribution.repository import Repository
from corral_server.pull.http_requests import HttpResponse
from tests.pull.fake_registry import FakeRegistry, Json, Request, response, sha256

BEARER = 'Bearer realm="https://auth.example/token",service="s"'


def _client(http: FakeRegistry, credentials: Credentials = NO_CREDENTIALS) -> RepositoryClient:
    return RepositoryClient(
        http, Repository(http.host, "team/model"), credentials=credentials, headers={"User-Agent": "x"}
    )


def _descriptor(data: bytes, size: int | None = None) -> Descriptor:
    return Descriptor("application/x", sha256(data), len(data) if size is None else size)


def _with_layer(http: FakeRegistry, data: bytes = b"content") -> Json:
    return {"layers": [http.add_blob(data, "application/x")]}


def _protected(valid: list[str], challenge: str = BEARER) -> Callable[[Request], HttpResponse | None]:
    """Return an ``intercept`` that demands one of the tokens at the registry."""

    def intercept(request: Request) -> HttpResponse | None:
        if "auth.example" in request.url or request.headers.get("Authorization") in [f"Bearer {v}" for v in valid]:
            return None
        return response(401, request.url, {}, {"www-authenticate": challenge})

    return intercept


def test_manifest_by_tag_and_by_digest() -> None:
    http = FakeRegistry()
    digest = http.add_manifest("v1", _with_layer(http))
    assert _client(http).manifest("v1", architecture="amd64").digest == digest
    assert _client(http).manifest(digest, architecture="amd64").digest == digest
    assert http.requests[0].url == "https://registry.example/v2/team/model/manifests/v1"
    assert "application/vnd.oci.image.index.v1+json" in http.requests[0].headers["Accept"]
    assert http.requests[0].headers["User-Agent"] == "x"


def test_manifest_with_another_digest_than_requested_is_refused() -> None:
    http = FakeRegistry()
    http.add_manifest("v1", _with_layer(http))
    wanted = f"sha256:{'1' * 64}"
    http.manifests[wanted] = http.manifests["v1"]
    with pytest.raises(SourceError, match=f"instead of {wanted}"):
        _client(http).manifest(wanted, architecture="amd64")


def test_manifest_that_differs_from_its_digest_header_is_refused() -> None:
    http = FakeRegistry(digest_header=f"sha256:{'2' * 64}")
    http.add_manifest("v1", _with_layer(http))
    with pytest.raises(SourceError, match="instead of sha256:2222"):
        _client(http).manifest("v1", architecture="amd64")


def test_index_leads_to_the_manifest_of_the_architecture() -> None:
    http = FakeRegistry()
    entries = []
    for architecture in ("arm64", "amd64"):
        digest = http.add_manifest(architecture, _with_layer(http, architecture.encode()))
        platform = {"os": "linux", "architecture": architecture}
        entries.append({"mediaType": "m", "digest": digest, "size": 1, "platform": platform})
    http.add_manifest("v1", {"manifests": entries})
    assert _client(http).manifest("v1", architecture="amd64").digest == entries[1]["digest"]


def test_index_in_which_each_entry_is_an_index_is_refused() -> None:
    http = FakeRegistry()
    digest = http.add_manifest("v0", _with_layer(http))
    for number in range(1, 5):
        digest = http.add_manifest(f"v{number}", {"manifests": [{"mediaType": "m", "digest": digest, "size": 1}]})
    with pytest.raises(SourceError, match="index of indexes"):
        _client(http).manifest("v4", architecture="amd64")
    assert _client(http).manifest("v2", architecture="amd64").layers


def test_index_that_names_itself_is_refused() -> None:
    http = FakeRegistry()
    digest = f"sha256:{'3' * 64}"
    http.add_manifest("v1", {"manifests": [{"mediaType": "m", "digest": digest, "size": 1}]})
    http.manifests[digest] = http.manifests["v1"]
    with pytest.raises(SourceError, match="instead of"):
        _client(http).manifest("v1", architecture="amd64")


def test_missing_manifest_is_an_error_with_the_registrys_message() -> None:
    with pytest.raises(SourceError, match=r"has no 'v1' of 'team/model': check name and tag \(manifest unknown\)"):
        _client(FakeRegistry()).manifest("v1", architecture="amd64")
    assert _client(FakeRegistry()).find_manifest("v1") is None


def test_message_of_a_registry_is_bounded_and_printable() -> None:
    def intercept(request: Request) -> HttpResponse:
        return response(500, request.url, {"errors": [{"message": "\x1b[2J" + "x" * 1000}]})

    with pytest.raises(SourceError, match="status 500") as error:
        _client(FakeRegistry(intercept=intercept)).manifest("v1", architecture="amd64")
    assert len(str(error.value)) < 500
    assert str(error.value).isprintable()


def test_blob_is_read_and_verified() -> None:
    http = FakeRegistry()
    http.add_blob(b"content", "application/x")
    assert _client(http).blob(_descriptor(b"content"), limit=7) == b"content"


@pytest.mark.parametrize("content", [b"contenT", b"conten", b"content "])
def test_blob_with_other_content_is_refused(content: bytes) -> None:
    http = FakeRegistry()
    http.blobs[sha256(b"content")] = content
    with pytest.raises(SourceError, match=r"other content|more than"):
        _client(http).blob(_descriptor(b"content"), limit=100)


def test_blob_above_the_limit_is_not_requested() -> None:
    http = FakeRegistry()
    with pytest.raises(SourceError, match="at most 6 are allowed"):
        _client(http).blob(_descriptor(b"content"), limit=6)
    assert http.requests == []


def test_part_of_a_blob() -> None:
    http = FakeRegistry()
    http.add_blob(b"content", "application/x")
    for http.ranges in (True, False):
        assert _client(http).part(_descriptor(b"content"), 2, length=3) == b"nte"
        assert _client(http).part(_descriptor(b"content"), 5, length=30) == b"nt"
        assert _client(http).part(_descriptor(b"content"), 7, length=1) == b""


def test_part_of_a_large_blob_needs_ranges() -> None:
    data = bytes(200_000)
    http = FakeRegistry(ranges=False)
    http.add_blob(data, "application/x")
    with pytest.raises(SourceError):
        _client(http).part(_descriptor(data), 0, length=4)


def test_wrong_range_is_refused() -> None:
    http = FakeRegistry(
        intercept=lambda request: HttpResponse(206, request.url, {"content-range": "bytes 50-53/100"}, b"abcd")
    )
    with pytest.raises(SourceError):
        _client(http).part(_descriptor(b"content"), 0, length=4)


def test_token_is_requested_once_and_goes_into_locations() -> None:
    http = FakeRegistry(intercept=_protected(["t1"]))
    http.others["auth.example"] = lambda request: response(200, request.url, {"token": "t1"})
    http.add_manifest("v1", _with_layer(http))
    client = _client(http)
    layer = client.manifest("v1", architecture="amd64").layers[0]
    assert client.blob(layer, limit=100) == b"content"
    location = client.location(layer)
    assert location.url == f"https://registry.example/v2/team/model/blobs/{layer.digest}"
    assert location.headers == {"User-Agent": "x", "Authorization": "Bearer t1"}
    assert sum("auth.example" in request.url for request in http.requests) == 1
    assert "t1" not in repr(location)


def test_expired_token_is_requested_again() -> None:
    valid = ["t1"]
    tokens = iter(["t1", "t2"])
    http = FakeRegistry(intercept=_protected(valid))
    http.others["auth.example"] = lambda request: response(200, request.url, {"token": next(tokens)})
    http.add_manifest("v1", _with_layer(http))
    client = _client(http)
    layer = client.manifest("v1", architecture="amd64").layers[0]
    valid[:] = ["t2"]
    assert client.blob(layer, limit=100) == b"content"
    assert client.location(layer).headers["Authorization"] == "Bearer t2"


def test_token_that_the_registry_refuses_is_an_error_after_one_attempt() -> None:
    http = FakeRegistry(intercept=_protected([]))
    http.others["auth.example"] = lambda request: response(200, request.url, {"token": "t1"})
    with pytest.raises(SourceError, match="denied access to 'v1'"):
        _client(http).manifest("v1", architecture="amd64")
    assert len(http.requests) == 3


def test_challenge_of_a_redirects_target_is_not_answered() -> None:
    def redirected(request: Request) -> HttpResponse:
        return response(401, "https://storage.example/x", {}, {"www-authenticate": BEARER})

    http = FakeRegistry(intercept=redirected)
    with pytest.raises(SourceError, match="denied access"):
        _client(http, Credentials(username="u", password="p")).manifest("v1", architecture="amd64")
    assert len(http.requests) == 1
