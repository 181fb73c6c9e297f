"""Reader of object stores against scripted responses: errors, stalls, broken bodies, hostile values."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Mapping

import pytest

from corral_core.base.errors import CorralError, SourceError
from corral_server.pull.credentials import Credentials
from corral_server.pull.errors import FileChanged, TransientError
from corral_server.pull.http.settings import NetworkSettings, network_settings
from corral_server.pull.objects import reader as reader_module
from corral_server.pull.objects.errors import NoSuchObject
from corral_server.pull.objects.reader import ObjectReader, ObjectStream
from corral_server.pull.remote_files import HttpLocation, ObjectLocation
from tests.pull.objects.scripted_store import HEADERS, Reply, Script, error, scripted_store

URI = "s3://models/folder/model.gguf"
SECRET = "kU9wVerySecretKey"
BODY = bytes(range(256)) * 4


def reader(endpoint: str, *, stall_timeout: float = 30.0, keys: bool = True) -> ObjectReader:
    options = {"AWS_ENDPOINT_URL": endpoint}
    if keys:
        options |= {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_SESSION_TOKEN": SECRET}
    network = NetworkSettings(stall_timeout=stall_timeout)
    return ObjectReader(Credentials(options=options), network, environ={})


def read(stream: ObjectStream, size: int = 100) -> bytes:
    """Read to the end with a small buffer."""
    found, buffer = bytearray(), memoryview(bytearray(size))
    while count := stream.readinto(buffer):
        found += buffer[:count]
    stream.close()
    return bytes(found)


def ranged(headers: Mapping[str, str]) -> Reply:
    """Reply with the requested range of BODY."""
    wanted = headers.get("range")
    if wanted is None:
        return Reply(body=BODY)
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    part = BODY[int(first) : int(last) + 1 if last else None]
    end = int(first) + len(part) - 1
    return Reply(206, part, {**HEADERS, "Content-Range": f"bytes {first}-{end}/{len(BODY)}"})


@pytest.fixture(autouse=True)
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "RANGE_RETRIES", 0)


@pytest.mark.parametrize(
    ("start", "end", "sent"),
    [(0, None, None), (10, None, "bytes=10-"), (0, 10, "bytes=0-9"), (1000, 1024, "bytes=1000-1023")],
)
def test_ranges(start: int, end: int | None, sent: str | None) -> None:
    requests: list[str | None] = []

    def script(method: str, path: str, headers: Mapping[str, str]) -> Reply:
        assert (method, path) == ("GET", "/models/folder/model.gguf")
        requests.append(headers.get("range"))
        return ranged(headers)

    with scripted_store(script) as endpoint:
        stream = reader(endpoint).open(ObjectLocation(URI), start=start, end=end)
        assert (stream.start, stream.total, stream.version) == (start, len(BODY), '"v1"')
        assert read(stream) == BODY[start:end]
        assert stream.readinto(memoryview(bytearray(1))) == 0
    assert requests == [sent]


def test_a_version_id_is_requested() -> None:
    def script(method: str, path: str, headers: Mapping[str, str]) -> Reply:
        del method
        return ranged(headers) if path.endswith("?versionId=v7") else error(404, "NoSuchKey")

    with scripted_store(script) as endpoint:
        assert read(reader(endpoint).open(ObjectLocation(URI, "v7"), start=1, end=3)) == BODY[1:3]
        with pytest.raises(FileChanged, match="has been deleted"):
            reader(endpoint).open(ObjectLocation(URI, "v8"))


def test_keys_with_special_characters() -> None:
    paths: list[str] = []

    def script(method: str, path: str, headers: Mapping[str, str]) -> Reply:
        del method, headers
        paths.append(path)
        return Reply(body=BODY)

    with scripted_store(script) as endpoint:
        reader(endpoint).info("s3://models/a%20b%2520c/%C3%A9%2B%3F%23.gguf")
    assert paths == ["/models/a%20b%2520c/%C3%A9%2B%3F%23.gguf"]


ERRORS: list[tuple[Reply, type[CorralError], str]] = [
    (error(404, "NoSuchKey"), NoSuchObject, "bucket 'models' of 127.0.0.1:[0-9]+ has no such object"),
    (error(404, "NoSuchBucket"), SourceError, "bucket 'models' of .* does not exist"),
    (error(403, "AccessDenied"), SourceError, "access denied to the credentials .HTTP 403 AccessDenied"),
    (error(403, "InvalidAccessKeyId"), SourceError, "the access key does not exist"),
    (error(403, "SignatureDoesNotMatch"), SourceError, "the secret key does not belong to the access key"),
    (error(400, "ExpiredToken"), SourceError, "the session token has expired"),
    (error(403, "RequestTimeTooSkewed"), SourceError, "the clock of this machine differs"),
    (error(401, "Unauthorized"), SourceError, "access denied to the credentials"),
    (Reply(301, headers={"x-amz-bucket-region": "eu-west-1"}), SourceError, "set AWS_REGION to the region of the bu"),
    (
        Reply(400, b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-3</Region></Error>"),
        SourceError,
        "set AWS_REGION=eu-west-3 in the credentials",
    ),
    (error(412, "PreconditionFailed"), FileChanged, "has been replaced"),
    (error(416, "InvalidRange"), FileChanged, "has been replaced"),
    (error(408, "RequestTimeout"), TransientError, "answers HTTP 408 RequestTimeout"),
    (error(429, "SlowDown"), TransientError, "answers HTTP 429 SlowDown"),
    (error(500, "InternalError"), TransientError, "answers HTTP 500 InternalError"),
    (error(503, "SlowDown"), TransientError, "answers HTTP 503 SlowDown"),
    (error(418, "Teapot"), SourceError, "answers HTTP 418 Teapot"),
    (Reply(400, b"<Code>not letters; \x1b[31m</Code>"), SourceError, "answers HTTP 400$"),
]


@pytest.mark.parametrize(("reply", "kind", "text"), ERRORS)
def test_an_error_of_the_server_says_what_to_do(reply: Reply, kind: type[CorralError], text: str) -> None:
    with scripted_store(lambda *_: reply) as endpoint, pytest.raises(kind, match=text) as caught:
        reader(endpoint).open(ObjectLocation(URI), start=1)
    assert type(caught.value) is kind
    assert URI in str(caught.value)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_without_credentials_asks_for_them(status: int) -> None:
    expected = pytest.raises(SourceError, match=r"is not public .*AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    with scripted_store(lambda *_: error(status, "AccessDenied")) as endpoint, expected:
        reader(endpoint, keys=False).info(URI)


def test_a_server_that_ignores_ranges_is_an_error() -> None:
    with scripted_store(lambda *_: Reply(body=BODY)) as endpoint, pytest.raises(SourceError, match="ignores ranges"):
        reader(endpoint).open(ObjectLocation(URI), start=5)


def test_a_stalled_response_is_given_up() -> None:
    started = time.monotonic()
    with scripted_store(lambda *_: Reply(body=b"abc", length=100, stall=True)) as endpoint:
        stream = reader(endpoint, stall_timeout=0.3).open(ObjectLocation(URI))
        with pytest.raises(TransientError, match="timed out"):
            read(stream)
    assert time.monotonic() - started < 10


def test_a_server_that_does_not_run_may_run_later() -> None:
    with scripted_store(lambda *_: Reply()) as endpoint:
        store = reader(endpoint)
    with pytest.raises(TransientError, match="no connection"):
        store.open(ObjectLocation(URI))


def test_a_body_that_ends_early_is_an_error() -> None:
    with scripted_store(lambda *_: Reply(body=b"abc", length=100)) as endpoint:
        stream = reader(endpoint).open(ObjectLocation(URI))
        with pytest.raises(TransientError):
            read(stream)


def test_a_closed_stream_has_no_more_bytes() -> None:
    with scripted_store(lambda *_: Reply(body=BODY)) as endpoint:
        stream = reader(endpoint).open(ObjectLocation(URI))
        assert stream.readinto(memoryview(bytearray(10))) == 10
        stream.close()
        assert stream.readinto(memoryview(bytearray(10))) == 0


def test_a_broken_response_is_continued_with_the_same_object_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """obstore requests the rest of a broken response again; it must not be that of another object."""
    monkeypatch.setattr(reader_module, "RANGE_RETRIES", 1)
    etags = iter(['"v1"', '"v2"'])

    def script(method: str, path: str, headers: Mapping[str, str]) -> Reply:
        del method, path
        if "range" not in headers:
            return Reply(body=BODY[:100], length=len(BODY))
        rest = ranged(headers)
        return Reply(206, rest.body, {**rest.headers, "ETag": next(etags)})

    with scripted_store(script) as endpoint:
        store = reader(endpoint)
        assert read(store.open(ObjectLocation(URI))) == BODY
        stream = store.open(ObjectLocation(URI))
        with pytest.raises(TransientError):
            read(stream)


def test_a_server_that_is_no_object_store_is_an_error() -> None:
    expected = pytest.raises(SourceError, match="does not answer like this kind of object store")
    with scripted_store(lambda *_: Reply(206, b"<html>")) as endpoint, expected:
        reader(endpoint).open(ObjectLocation(URI), start=1)


def test_attributes() -> None:
    digest = "ab" * 32
    headers = {**HEADERS, "x-amz-version-id": "null", "x-amz-meta-sha256": digest.upper()}
    with scripted_store(lambda *_: Reply(body=BODY, headers=headers)) as endpoint:
        info = reader(endpoint).info(URI)
    assert (info.size, info.etag, info.version, info.sha256) == (len(BODY), '"v1"', "", digest)


@pytest.mark.parametrize("digest", ["", "ab", "zz" * 32, "ab" * 33, "md5:" + "ab" * 30])
def test_metadata_that_is_no_digest_is_ignored(digest: str) -> None:
    headers = {**HEADERS, "x-amz-meta-sha256": digest}
    with scripted_store(lambda *_: Reply(body=BODY, headers=headers)) as endpoint:
        assert reader(endpoint).info(URI).sha256 is None


def test_long_identifiers_are_ignored() -> None:
    headers = {**HEADERS, "ETag": f'"{"x" * 5000}"', "x-amz-version-id": "y" * 5000}
    with scripted_store(lambda *_: Reply(body=BODY, headers=headers)) as endpoint:
        info = reader(endpoint).info(URI)
    assert (info.etag, info.version) == ("", "")


def test_a_redirect_to_a_server_without_tls_is_not_followed_by_a_client_of_one_with_tls() -> None:
    requests: list[str] = []

    def script(method: str, path: str, headers: Mapping[str, str]) -> Reply:
        del method, headers
        requests.append(path)
        return Reply(body=BODY)

    with scripted_store(script) as endpoint:
        store = reader(endpoint.replace("http:", "https:"))
        with pytest.raises(TransientError):
            store.info(URI)
    assert requests == []


def test_another_location_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(TypeError):
        reader("http://127.0.0.1:9").open(HttpLocation("https://example.com"))


def _leaks(call: Callable[[], object], caplog: pytest.LogCaptureFixture, secrets: tuple[str, ...]) -> list[str]:
    """Return the secrets in the error, its causes, its traceback or the log."""
    with pytest.raises(CorralError) as caught:
        call()
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + caplog.text
    assert caught.value.__cause__ is None
    return [secret for secret in secrets if secret in shown]


@pytest.mark.parametrize("status", [400, 403, 404, 412, 500])
def test_no_secret_and_no_text_of_the_server_is_shown(status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    script: Script = lambda *_: error(status, "Some", f"you sent {SECRET} to internal-host")  # noqa: E731
    with scripted_store(script) as endpoint:
        store = reader(endpoint)
        for call in (
            lambda: store.info(URI),
            lambda: store.open(ObjectLocation(URI)),
            lambda: store.names(URI, limit=9),
        ):
            assert _leaks(call, caplog, (SECRET, "internal-host", "AKID")) == []
        assert SECRET not in repr(store)


def test_a_shared_access_signature_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    signature = "sig=c2lnbmF0dXJlb2ZBenVyZQ%3D%3D"
    paths: list[str] = []

    def script(method: str, path: str, headers: Mapping[str, str]) -> Reply:
        del method, headers
        paths.append(path)
        return Reply(403)

    with scripted_store(script) as endpoint:
        options = {
            "AZURE_STORAGE_ACCOUNT_NAME": "acme",
            "AZURE_STORAGE_SAS_TOKEN": f"?sv=2024-01-01&sp=r&{signature}",
            "AZURE_STORAGE_ENDPOINT": endpoint,
        }
        store = ObjectReader(Credentials(options=options), NetworkSettings(), environ={})
        for call in (
            lambda: store.info("az://models/m.gguf"),
            lambda: store.open(ObjectLocation("az://models/m.gguf")),
        ):
            assert _leaks(call, caplog, (signature, "c2lnbmF0")) == []
    assert any(signature in path for path in paths), "the signature was not sent at all"


def test_a_proxy_that_asks_for_credentials() -> None:
    """The proxy answers CONNECT with 407."""
    with scripted_store(lambda *_: Reply(407)) as endpoint:
        options = {"AWS_ENDPOINT_URL": "https://weights.test"}
        network = network_settings({"HTTPS_PROXY": endpoint})
        with pytest.raises(SourceError, match=r"the proxy refuses the connection to weights\.test; check its user"):
            ObjectReader(Credentials(options=options), network, environ={}).open(ObjectLocation(URI))


def test_a_proxy_that_does_not_run() -> None:
    with scripted_store(lambda *_: Reply()) as endpoint:
        proxy = endpoint
    options = {"AWS_ENDPOINT_URL": "https://weights.test"}
    network = network_settings({"HTTPS_PROXY": proxy})
    with pytest.raises(TransientError, match=r"weights\.test by the proxy failed: no connection"):
        ObjectReader(Credentials(options=options), network, environ={}).open(ObjectLocation(URI))


def test_the_environment_of_the_process_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """obstore reads these variables itself."""
    for name, value in {
        "AWS_SESSION_TOKEN": "foreign",
        "AWS_ACCESS_KEY_ID": "FOREIGN",
        "AWS_SECRET_ACCESS_KEY": "foreign",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
        "AWS_REGION": "eu-west-9",
        "http_proxy": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    sent: list[Mapping[str, str]] = []

    def script(method: str, path: str, headers: Mapping[str, str]) -> Reply:
        del method, path
        sent.append(headers)
        return Reply(body=BODY)

    with scripted_store(script) as endpoint:
        options = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": SECRET}
        ObjectReader(Credentials(options=options), NetworkSettings(), environ={}).info(URI)
        ObjectReader(Credentials(options={"AWS_ENDPOINT_URL": endpoint}), NetworkSettings(), environ={}).info(URI)
    signed, unsigned = sent
    assert "Credential=AKID/" in signed["authorization"]
    assert "/us-east-1/s3/" in signed["authorization"]
    assert "x-amz-security-token" not in signed
    assert "authorization" not in unsigned
