"""Resolver of ``https://`` URLs against a real server, through the real HTTP client."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

import pytest

from corral_core.base.errors import SourceError
from corral_core.sources.forms import UrlSource
from corral_server.pull.credentials import NO_CREDENTIALS, Credentials
from corral_server.pull.errors import FileChanged, TransientError
from corral_server.pull.http.client import HttpClient
from corral_server.pull.remote_files import ResolvedSource
from corral_server.pull.resolvers.url import UrlResolver
from tests.pull.resolvers.file_server import FileServer, running_file_server
from tests.support.hub_repository import Repository
from tests.support.hub_server import HubServer

DATA = b"weights" * 1000
DATE = "Mon, 01 Jan 2024 00:00:00 GMT"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with running_file_server() as running:
        running.files["/models/tiny.gguf"] = DATA
        yield running


def resolve(
    client: HttpClient, url: str, *, pin: str = "", credentials: Credentials = NO_CREDENTIALS
) -> ResolvedSource:
    """Resolve ``https://`` for the URL of a server without TLS, as for a host of CORRAL_PLAIN_HTTP_HOSTS."""
    resolver = UrlResolver(client, credentials, plain_http_hosts=("127.0.0.1",))
    return resolver.resolve(UrlSource(url.replace("http://", "https://")), pin=pin)


def test_size_version_and_name(server: FileServer, client: HttpClient) -> None:
    server.headers["ETag"] = '"v1"'
    found = resolve(client, f"{server.url}/models/tiny.gguf")
    (file,) = found.files
    assert (file.name, file.size, file.version, file.sha256, found.pin) == ("tiny.gguf", len(DATA), '"v1"', None, "v1")


@pytest.mark.parametrize(
    ("headers", "pin"),
    [
        ({"ETag": '"v1"', "Last-Modified": DATE}, "v1"),
        ({"ETag": 'W/"v1"'}, "v1"),
        ({"Last-Modified": DATE}, f"{DATE} {len(DATA)}"),
        ({}, str(len(DATA))),
        ({"ETag": f'"{"x" * 500}"'}, hashlib.sha256(b"x" * 500).hexdigest()),
    ],
)
def test_the_pin_names_the_version(server: FileServer, client: HttpClient, headers: dict[str, str], pin: str) -> None:
    server.headers.update(headers)
    url = f"{server.url}/models/tiny.gguf"
    found = resolve(client, url)
    assert found.pin == pin
    assert resolve(client, url, pin=found.pin) == found


def test_a_changed_file_is_not_the_pinned_one(server: FileServer, client: HttpClient) -> None:
    server.headers["ETag"] = '"v1"'
    url = f"{server.url}/models/tiny.gguf"
    pin = resolve(client, url).pin
    server.headers["ETag"] = '"v2"'
    with pytest.raises(FileChanged, match="has changed since it was resolved, and a URL has no older versions"):
        resolve(client, url, pin=pin)


def test_a_server_without_ranges_and_sizes(server: FileServer, client: HttpClient) -> None:
    server.ranges, server.lengths = False, False
    found = resolve(client, f"{server.url}/models/tiny.gguf")
    assert (found.files[0].size, found.files[0].version, found.pin) == (None, "", "unversioned")


@pytest.mark.parametrize("status", [403, 404, 405, 501])
def test_a_server_without_head(server: FileServer, client: HttpClient, status: int) -> None:
    server.head_status = status
    server.headers["ETag"] = '"v1"'
    found = resolve(client, f"{server.url}/models/tiny.gguf?X-Amz-Signature=abc")
    assert (found.files[0].size, found.pin) == (len(DATA), "v1")


@pytest.mark.parametrize(
    ("status", "error"), [(500, TransientError), (503, TransientError), (408, TransientError), (400, SourceError)]
)
def test_a_failed_head_does_not_pin_another_identity(
    server: FileServer, client: HttpClient, status: int, error: type[Exception]
) -> None:
    server.headers |= {"ETag": '"v1"', "X-Linked-Etag": f'"{"a" * 64}"'}
    url = f"{server.url}/models/tiny.gguf"
    assert resolve(client, url).pin == "a" * 64
    server.head_status = status
    with pytest.raises(error, match=str(status)):
        resolve(client, url)


def test_all_parts_of_a_split_file_keep_the_query(server: FileServer, client: HttpClient) -> None:
    for number in (1, 2, 3):
        server.files[f"/a%20b/m-0000{number}-of-00003.gguf"] = b"x" * number
    server.headers["ETag"] = '"v1"'
    url = f"{server.url}/a%20b/m-00001-of-00003.gguf?token=t"
    found = resolve(client, url)
    assert [(file.name, file.size) for file in found.files] == [
        ("m-00001-of-00003.gguf", 1),
        ("m-00002-of-00003.gguf", 2),
        ("m-00003-of-00003.gguf", 3),
    ]
    assert {path.partition("?")[2] for _, path, _ in server.seen} == {"token=t"}
    assert found.pin == hashlib.sha256(b"v1\nv1\nv1").hexdigest()


def test_a_missing_part_is_named(server: FileServer, client: HttpClient) -> None:
    server.files["/m-00001-of-00002.gguf"] = b"x"
    with pytest.raises(SourceError, match=r"m-00002-of-00002\.gguf does not exist"):
        resolve(client, f"{server.url}/m-00001-of-00002.gguf")


def test_only_a_listed_host_is_reached_without_tls(server: FileServer, client: HttpClient) -> None:
    url = f"{server.url}/models/tiny.gguf".replace("http://", "https://")
    with pytest.raises(SourceError, match="does not speak TLS"):
        UrlResolver(client, NO_CREDENTIALS, plain_http_hosts=("localhost",)).resolve(UrlSource(url))
    assert not server.seen


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/a/b%20c.gguf", "b-c.gguf"),
        ("/a/", "model.gguf"),
        ("/a/x%2Fetc", "x-etc.gguf"),
        ("/a/.hidden", "hidden.gguf"),
        ("/a%00b", "a-b.gguf"),
        ("/a%FFb", "a-b.gguf"),
        ("/download?file=x.gguf", "download.gguf"),
    ],
)
def test_the_name_is_a_plain_file_name(server: FileServer, client: HttpClient, path: str, name: str) -> None:
    server.files[path.partition("?")[0]] = b"x"
    assert resolve(client, f"{server.url}{path}").files[0].name == name


def test_credentials_go_to_the_host_of_the_url_alone(server: FileServer, client: HttpClient) -> None:
    with running_file_server() as other:
        other.files["/elsewhere"] = DATA
        server.redirects["/models/tiny.gguf"] = f"{other.url}/elsewhere".replace("127.0.0.1", "localhost")
        found = resolve(client, f"{server.url}/models/tiny.gguf", credentials=Credentials(token="secret"))
        assert found.size == len(DATA)
        assert {headers.get("authorization") for _, _, headers in server.seen} == {"Bearer secret"}
        assert other.seen
        assert {headers.get("authorization") for _, _, headers in other.seen} == {None}
        assert "secret" not in repr(found)


def test_user_and_password(server: FileServer, client: HttpClient) -> None:
    resolve(client, f"{server.url}/models/tiny.gguf", credentials=Credentials(username="ann", password="p:w"))
    expected = base64.b64encode(b"ann:p:w").decode()
    assert {headers["authorization"] for _, _, headers in server.seen} == {f"Basic {expected}"}


@pytest.mark.parametrize(
    ("query", "credentials", "text"),
    [
        ("", NO_CREDENTIALS, "it needs credentials that are allowed to read it"),
        ("", Credentials(token="secret"), "it does not accept the credentials; correct those in spec.sourceSecretRef"),
        ("?sig=secret", NO_CREDENTIALS, "the signature in its query has expired; write a new URL"),
    ],
)
def test_a_refusal_says_what_to_do(
    server: FileServer, client: HttpClient, query: str, credentials: Credentials, text: str
) -> None:
    server.status = 401
    with pytest.raises(SourceError, match=text) as error:
        resolve(client, f"{server.url}/models/tiny.gguf{query}", credentials=credentials)
    assert "secret" not in str(error.value)


def test_an_empty_file(server: FileServer, client: HttpClient) -> None:
    server.files["/empty.gguf"] = b""
    with pytest.raises(SourceError, match="the file is empty or cannot be read"):
        resolve(client, f"{server.url}/empty.gguf")


def test_too_many_parts(server: FileServer, client: HttpClient) -> None:
    with pytest.raises(SourceError, match="split into 99999 parts"):
        resolve(client, f"{server.url}/m-00001-of-99999.gguf?sig=secret")
    assert not server.seen


def test_a_url_of_hugging_face_has_the_digest_of_the_file(hub: HubServer, client: HttpClient) -> None:
    repository = hub.add(Repository("o/r"))
    repository.commit({"a.gguf": DATA}, branch="main")
    found = resolve(client, f"{hub.url}/o/r/resolve/main/a.gguf?download=true")
    digest = hashlib.sha256(DATA).hexdigest()
    assert (found.pin, found.files[0].sha256, found.files[0].size) == (digest, digest, len(DATA))
    assert found.files[0].version == ""
