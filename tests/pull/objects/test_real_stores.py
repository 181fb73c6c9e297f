"""Resolver, reader and downloader on real object stores: S3, Google Cloud Storage and Azure Blob Storage."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from corral_core.base.errors import SourceError
from corral_core.sources.forms import BucketSource
from corral_core.sources.locate import WeightsRoots, locate_weights, weight_parts
from corral_core.sources.uri import parse_source
from corral_server.pull.credentials import Credentials
from corral_server.pull.download.downloader import Downloader
from corral_server.pull.download.options import DownloadOptions
from corral_server.pull.errors import FileChanged, PullError
from corral_server.pull.http.settings import NetworkSettings, network_settings
from corral_server.pull.network import NetworkTransports
from corral_server.pull.objects.reader import ObjectReader, ObjectStream
from corral_server.pull.objects.settings import Provider
from corral_server.pull.progress import PullProgress
from corral_server.pull.puller import Puller
from corral_server.pull.remote_files import (
    ByteStream,
    Location,
    ObjectLocation,
    RangeReader,
    RemoteFile,
    ResolvedSource,
)
from corral_server.pull.resolvers.buckets import BucketResolver
from corral_server.pull.store import WeightsStore
from tests.cluster.child_processes import minimal_environment
from tests.pull.servers.object_stores import ACCOUNT_KEY, SECRET_KEY, ObjectServer, s3_server
from tests.support.authority import Authority
from tests.support.gguf_split import split_gguf
from tests.support.tiny_model import write_tiny_model
from tests.support.web_servers import tinyproxy

pytestmark = pytest.mark.process

Stores = Mapping[Provider, ObjectServer]
PROVIDERS: tuple[Provider, ...] = ("s3", "gs", "az")
DATA = random.Random(7).randbytes(3_000_000)
DIGEST = hashlib.sha256(DATA).hexdigest()
_numbers = itertools.count(1)


@pytest.fixture(params=PROVIDERS)
def server(request: pytest.FixtureRequest, stores: Stores) -> ObjectServer:
    return stores[request.param]


@pytest.fixture
def bucket(server: ObjectServer) -> str:
    """Create a bucket of its own for the test."""
    return new_bucket(server)


def new_bucket(server: ObjectServer, *, versions: bool = False, public: bool = False) -> str:
    name = f"bucket-{next(_numbers)}"
    server.create(name, versions=versions, public=public)
    return name


def reader(
    server: ObjectServer, changes: Mapping[str, str] | None = None, *, network: NetworkSettings | None = None
) -> ObjectReader:
    """Return a reader with the server's credentials and ``changes``; an empty value removes a variable."""
    options = {**server.options, **(changes or {})}
    return ObjectReader(Credentials(options=options), network or NetworkSettings(), environ={})


def resolve(objects: ObjectReader, uri: str, *, pin: str = "") -> ResolvedSource:
    source = parse_source(uri)
    assert isinstance(source, BucketSource)
    return BucketResolver(objects).resolve(source, pin=pin)


def read(stream: ObjectStream) -> bytes:
    found, buffer = bytearray(), memoryview(bytearray(100_000))
    while count := stream.readinto(buffer):
        found += buffer[:count]
    stream.close()
    return bytes(found)


def fetch(objects: RangeReader, file: RemoteFile, root: Path) -> tuple[str, bytes]:
    """Download a file; return the digest that the downloader reports and the bytes of the blob."""
    store = WeightsStore(root)
    progress: list[PullProgress] = []
    options = DownloadOptions(first_part=300_000, min_part=300_000, max_part=300_000, first_delay=0.01, attempts=2)
    found = Downloader(store, objects, options=options).fetch(file, progress.append)
    assert progress[-1].completed == file.size
    return found.sha256, (root / "blobs" / f"sha256-{found.sha256}").read_bytes()


def test_a_download(server: ObjectServer, bucket: str, tmp_path: Path) -> None:
    server.put(bucket, "folder/model.gguf", DATA)
    objects = reader(server)
    resolved = resolve(objects, server.uri(bucket, "folder/model.gguf"))
    [file] = resolved.files
    assert (file.name, file.size, file.sha256) == ("model.gguf", len(DATA), None)
    assert resolved.pin
    assert fetch(objects, file, tmp_path) == (DIGEST, DATA)


@pytest.mark.parametrize("count", [1, 3])
def test_the_header_and_the_files_of_a_model(server: ObjectServer, bucket: str, count: int, tmp_path: Path) -> None:
    """What a puller does with a Model: metadata by ranges, then the files in the store as a runner finds them."""
    tiny = write_tiny_model(tmp_path)
    parts = [tiny] if count == 1 else split_gguf(tiny, tmp_path, parts=count)
    for part in parts:
        server.put(bucket, f"models/{part.name}", part.read_bytes())
    uri = server.uri(bucket, "models")
    transports = NetworkTransports(NetworkSettings(), Credentials(options=server.options))
    store = WeightsStore(tmp_path / "store")
    puller = Puller(store, transports, Downloader(store, transports))
    resolved = puller.resolve(uri)
    metadata = puller.inspect(resolved)
    assert metadata is not None
    assert metadata.size == sum(part.stat().st_size for part in parts)
    snapshot = puller.pull(uri, pin=resolved.pin)
    found = locate_weights(parse_source(uri), WeightsRoots(store=store.root, snapshots={uri: snapshot.id}))
    assert [path.read_bytes() for path in weight_parts(found)] == [part.read_bytes() for part in parts]


def test_a_digest_in_the_metadata_is_checked(server: ObjectServer, bucket: str, tmp_path: Path) -> None:
    objects = reader(server)
    for key, digest in (("right.gguf", DIGEST), ("wrong.gguf", "0" * 64)):
        server.put(bucket, key, DATA, metadata={"sha256": digest})
    [right] = resolve(objects, server.uri(bucket, "right.gguf")).files
    [wrong] = resolve(objects, server.uri(bucket, "wrong.gguf")).files
    assert (right.sha256, wrong.sha256) == (DIGEST, "0" * 64)
    assert fetch(objects, right, tmp_path)[0] == DIGEST
    with pytest.raises((PullError, SourceError), match="0000"):
        fetch(objects, wrong, tmp_path)


@pytest.mark.parametrize(("start", "end"), [(0, None), (1, 2), (999_999, 2_000_001), (2_999_999, 3_000_000), (5, None)])
def test_ranges(server: ObjectServer, bucket: str, start: int, end: int | None) -> None:
    server.put(bucket, "model.gguf", DATA)
    stream = reader(server).open(ObjectLocation(server.uri(bucket, "model.gguf")), start=start, end=end)
    assert (stream.start, stream.total) == (start, len(DATA))
    assert read(stream) == DATA[start:end]


def test_names_with_special_characters(server: ObjectServer, bucket: str, tmp_path: Path) -> None:
    key = "päth with spaces/100%/a+b=c&d.gguf"
    server.put(bucket, key, DATA)
    objects = reader(server)
    for store, uri in (("file", server.uri(bucket, key)), ("folder", server.uri(bucket, "päth with spaces"))):
        [file] = resolve(objects, uri).files
        assert file.name == "a+b=c&d.gguf"
        assert fetch(objects, file, tmp_path / store)[0] == DIGEST


def test_a_split_file_and_a_folder(server: ObjectServer, bucket: str) -> None:
    names = [f"m-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    for name in names:
        server.put(bucket, f"models/big/{name}", name.encode())
    server.put(bucket, "models/big/mmproj-m.gguf", b"projector")
    server.put(bucket, "models/big/README.md", b"text")
    server.put(bucket, "models/other/x.gguf", b"x")
    objects = reader(server)
    assert [file.name for file in resolve(objects, server.uri(bucket, f"models/big/{names[0]}")).files] == names
    folder = resolve(objects, server.uri(bucket, "models/big"))
    assert [file.name for file in folder.files] == [*names, "mmproj-m.gguf"]
    assert resolve(objects, server.uri(bucket, "models/big"), pin=folder.pin) == folder
    with pytest.raises(SourceError, match=r"several models.*models/big/m-00001.*models/other/x\.gguf"):
        resolve(objects, server.uri(bucket, "models"))


def test_a_missing_object(server: ObjectServer, bucket: str) -> None:
    uri = server.uri(bucket, "no/such.gguf")
    with pytest.raises(SourceError, match="there is no such object, and none below it"):
        resolve(reader(server), uri)
    with pytest.raises(SourceError, match="has no such object"):
        reader(server).open(ObjectLocation(uri))


@pytest.mark.parametrize("provider", ["s3", "az"])
def test_a_missing_bucket(stores: Stores, provider: Provider) -> None:
    """fake-gcs-server answers a list of a missing bucket with 500, so it is not asked."""
    server = stores[provider]
    with pytest.raises(SourceError, match=r"(bucket|container) 'no-such-bucket' of 127\.0\.0\.1:[0-9]+ does not exist"):
        resolve(reader(server), server.uri("no-such-bucket", "model.gguf"))


@pytest.mark.parametrize(
    ("provider", "changes", "text"),
    [
        ("s3", {"AWS_SECRET_ACCESS_KEY": "geheim"}, "the secret key does not belong to the access key"),
        ("s3", {"AWS_ACCESS_KEY_ID": "AKIDOTHER"}, "the access key does not exist"),
        ("s3", {"AWS_SESSION_TOKEN": "geheim"}, "the session token is not valid"),
        ("s3", {"AWS_REGION": "eu-west-9"}, "is in another region; set AWS_REGION=us-east-1"),
        ("s3", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, r"is not public \(HTTP 403"),
        ("az", {"AZURE_STORAGE_ACCOUNT_KEY": "Z2VoZWlt"}, "access denied to the credentials .HTTP 403"),
        ("az", {"AZURE_STORAGE_ACCOUNT_KEY": ""}, r"is not public \(HTTP 403"),
        ("az", {"AZURE_STORAGE_ACCOUNT_KEY": "", "AZURE_STORAGE_SAS_TOKEN": "sv=2023-11-03&sig=geheim"}, "HTTP 403"),
        ("az", {"AZURE_STORAGE_ACCOUNT_KEY": "not base64 geheim"}, "is not valid: obstore cannot use it"),
    ],
)
def test_wrong_credentials(stores: Stores, provider: Provider, changes: Mapping[str, str], text: str) -> None:
    server = stores[provider]
    bucket = new_bucket(server)
    server.put(bucket, "model.gguf", b"x")
    uri = server.uri(bucket, "model.gguf")
    objects = reader(server, changes)
    with pytest.raises(SourceError, match=text) as caught:
        resolve(objects, uri)
    with pytest.raises(SourceError, match=text):
        reader(server, changes).open(ObjectLocation(uri))
    shown = repr(caught.value) + repr(objects)
    assert not [secret for secret in ("geheim", SECRET_KEY, ACCOUNT_KEY) if secret in shown]


@pytest.mark.parametrize(
    ("provider", "changes"),
    [
        ("s3", {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}),
        ("az", {"AZURE_STORAGE_ACCOUNT_KEY": ""}),
        ("gs", {}),
    ],
)
def test_a_public_bucket_needs_no_credentials(
    stores: Stores, provider: Provider, changes: Mapping[str, str], tmp_path: Path
) -> None:
    server = stores[provider]
    bucket = new_bucket(server, public=True)
    server.put(bucket, "folder/model.gguf", DATA)
    objects = reader(server, changes)
    [file] = resolve(objects, server.uri(bucket, "folder")).files
    assert fetch(objects, file, tmp_path)[0] == DIGEST


def test_a_shared_access_signature(stores: Stores, tmp_path: Path) -> None:
    server = stores["az"]
    bucket = new_bucket(server)
    server.put(bucket, "model.gguf", DATA)
    signature = server.shared_access_signature(bucket, "model.gguf")
    objects = reader(server, {"AZURE_STORAGE_ACCOUNT_KEY": "", "AZURE_STORAGE_SAS_TOKEN": f"?{signature}"})
    [file] = resolve(objects, server.uri(bucket, "model.gguf")).files
    assert fetch(objects, file, tmp_path)[0] == DIGEST


def test_a_replaced_object(server: ObjectServer, bucket: str, tmp_path: Path) -> None:
    """Bytes of two objects are never mixed: neither in one file, nor under the pin of the first."""
    server.put(bucket, "model.gguf", DATA)
    objects = reader(server)
    uri = server.uri(bucket, "model.gguf")
    resolved = resolve(objects, uri)
    stream = objects.open(resolved.files[0].location, start=0, end=1_000_000)
    first = memoryview(bytearray(1000))
    assert stream.readinto(first) == 1000
    server.put(bucket, "model.gguf", DATA[::-1])
    with pytest.raises(FileChanged):
        fetch(objects, resolved.files[0], tmp_path)
    with pytest.raises(SourceError, match="change the Model's source"):
        resolve(objects, uri, pin=resolved.pin)
    stream.close()
    assert fetch(objects, resolve(objects, uri).files[0], tmp_path)[1] == DATA[::-1]


class ReplacingReader:
    """Reader that replaces the object before it opens the third range."""

    def __init__(self, objects: ObjectReader, replace: Callable[[], None]) -> None:
        self._objects = objects
        self._replace = replace
        self._opened = itertools.count(1)

    def open(self, location: Location, *, start: int = 0, end: int | None = None) -> ByteStream:
        if next(self._opened) == 3:
            self._replace()
        return self._objects.open(location, start=start, end=end)


def test_an_object_that_is_replaced_during_its_download(server: ObjectServer, bucket: str, tmp_path: Path) -> None:
    server.put(bucket, "model.gguf", DATA)
    objects = reader(server)
    [file] = resolve(objects, server.uri(bucket, "model.gguf")).files
    replacing = ReplacingReader(objects, lambda: server.put(bucket, "model.gguf", DATA[::-1]))
    with pytest.raises(FileChanged):
        fetch(replacing, file, tmp_path)
    assert not list((tmp_path / "blobs").glob("*"))


@pytest.mark.parametrize("provider", ["s3", "gs"])
def test_a_pinned_version_stays_available(stores: Stores, provider: Provider, tmp_path: Path) -> None:
    server = stores[provider]
    bucket = new_bucket(server, versions=True)
    server.put(bucket, "model.gguf", DATA)
    objects = reader(server)
    uri = server.uri(bucket, "model.gguf")
    first = resolve(objects, uri)
    assert first.pin.startswith("version:")
    server.put(bucket, "model.gguf", DATA[::-1])
    assert resolve(objects, uri).pin != first.pin
    assert resolve(objects, uri, pin=first.pin) == first
    assert fetch(objects, first.files[0], tmp_path) == (DIGEST, DATA)


def test_ranges_far_into_a_large_object(stores: Stores) -> None:
    server = stores["s3"]
    bucket, size = new_bucket(server), 40 * 2**30
    server.put_file(bucket, "large.gguf", size=size)
    objects = reader(server)
    location = ObjectLocation(server.uri(bucket, "large.gguf"))
    assert resolve(objects, location.uri).size == size
    for start in (2**31 - 1, 2**32 - 1, 2**32 + 5, size - 3):
        stream = objects.open(location, start=start, end=start + 10)
        assert (stream.start, stream.total) == (start, size)
        assert read(stream) == bytes(min(10, size - start))


MEMORY = """
import sys
from corral_server.pull.credentials import Credentials
from corral_server.pull.http.settings import NetworkSettings
from corral_server.pull.objects.reader import ObjectReader
from corral_server.pull.remote_files import ObjectLocation

uri, options = sys.argv[1], dict(pair.split("=", 1) for pair in sys.argv[2:])
stream = ObjectReader(Credentials(options=options), NetworkSettings(), environ={}).open(ObjectLocation(uri))
buffer, total = memoryview(bytearray(256 * 1024)), 0
while count := stream.readinto(buffer):
    total += count
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(total, peak.split()[1])
"""


def test_memory_is_bounded_while_a_large_object_is_read(stores: Stores) -> None:
    server = stores["s3"]
    bucket, size = new_bucket(server), 2**30
    server.put_file(bucket, "large.gguf", size=size)
    options = [f"{name}={value}" for name, value in server.options.items()]
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, server.uri(bucket, "large.gguf"), *options],
        env=minimal_environment(extra={"PYTHONPATH": os.pathsep.join(sys.path)}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    total, kib = map(int, done.stdout.split())
    assert total == size
    assert kib < 80 * 1024


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"), "company-ca")


def test_the_proxy_and_the_authority(stores: Stores, authority: Authority, tmp_path: Path) -> None:
    """The name ``weights.test`` is known to the proxy alone, so the server cannot be reached without it."""
    assert stores
    with s3_server(tmp_path / "s3", tls=authority.issue("weights.test"), host="weights.test") as server:
        port = urlsplit(server.endpoint).port or 0
        bucket = new_bucket(server)
        server.put_file(bucket, "model.gguf", DATA)
        uri = server.uri(bucket, "model.gguf")
        with tinyproxy(tmp_path / "proxy", ports=[port], login=("user", "geheim")) as proxy:
            right, wrong = (f"http://{login}@127.0.0.1:{proxy}" for login in ("user:geheim", "user:falsch"))
            environ = {"HTTPS_PROXY": right, "CORRAL_CA_BUNDLE": ""}
            trusting = {**environ, "CORRAL_CA_BUNDLE": str(authority.certificate)}
            objects = reader(server, network=network_settings(trusting))
            [file] = resolve(objects, uri).files
            assert fetch(objects, file, tmp_path / "store")[0] == DIGEST
            assert f"weights.test:{port}" in (tmp_path / "proxy/access.log").read_text()
            with pytest.raises(SourceError, match=r"certificate of weights\.test:[0-9]+ is not trusted"):
                resolve(reader(server, network=network_settings(environ)), uri)
            with pytest.raises(PullError, match=r"the proxy opens no connection to weights\.test") as caught:
                resolve(reader(server, network=network_settings({**trusting, "HTTPS_PROXY": wrong})), uri)
            assert "falsch" not in repr(caught.value)
        direct = {**trusting, "HTTPS_PROXY": ""}
        with pytest.raises(PullError, match="no connection"):
            resolve(reader(server, network=network_settings(direct)), uri)


def test_the_proxy_of_the_environment_is_not_used(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    server = stores["s3"]
    bucket = new_bucket(server)
    server.put_file(bucket, "model.gguf", DATA)
    assert resolve(reader(server), server.uri(bucket, "model.gguf")).size == len(DATA)
