"""Resolver of buckets against a scripted S3 server: keys, folders, split files, pins."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest

from corral_core.base.errors import SourceError
from corral_core.sources.uri import parse_source
from corral_server.pull.credentials import Credentials
from corral_server.pull.http.settings import NetworkSettings
from corral_server.pull.objects.reader import ObjectReader
from corral_server.pull.remote_files import FileRole, ObjectLocation, ResolvedSource
from corral_server.pull.resolvers import buckets
from corral_server.pull.resolvers.buckets import BucketResolver
from tests.pull.objects.scripted_store import HEADERS, Reply, error, scripted_store

PARTS = [f"big/model-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
DIGEST = "0123456789abcdef" * 4


@dataclass(frozen=True, slots=True)
class Stored:
    """One object; with ``version`` it has a version id."""

    etag: str = "e1"
    version: str = ""
    sha256: str = ""
    size: int = 10


class Bucket:
    """Objects of the bucket ``models`` by key; old versions stay available by ``<key>?<version>``.

    Without ``prefixed``, a list has all objects, whatever prefix is asked for.
    """

    def __init__(self, objects: Mapping[str, Stored], *, may_list: bool = True, prefixed: bool = True) -> None:
        self.objects = dict(objects)
        self.may_list = may_list
        self.prefixed = prefixed

    def __call__(self, method: str, path: str, headers: Mapping[str, str]) -> Reply:
        del method, headers
        url = urlsplit(path)
        query = parse_qs(url.query)
        if "list-type" in query:
            return self._list(query["prefix"][0])
        key = unquote(url.path.removeprefix("/models/"))
        version = query.get("versionId", [""])[0]
        found = self.objects.get(f"{key}?{version}" if version else key)
        if found is None and version and self.objects.get(key, Stored()).version == version:
            found = self.objects[key]
        return error(404, "NoSuchKey") if found is None else _head(found)

    def _list(self, prefix: str) -> Reply:
        if not self.may_list:
            return error(403, "AccessDenied")
        items = "".join(
            f"<Contents><Key>{key}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag>"
            f"<Size>{stored.size}</Size></Contents>"
            for key, stored in self.objects.items()
            if "?" not in key and (key.startswith(prefix) or not self.prefixed)
        )
        body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{items}</ListBucketResult>"
        return Reply(body=body.encode(), headers={"Content-Type": "application/xml"})


def _head(stored: Stored) -> Reply:
    headers = {**HEADERS, "ETag": f'"{stored.etag}"'}
    if stored.version:
        headers["x-amz-version-id"] = stored.version
    if stored.sha256:
        headers["x-amz-meta-sha256"] = stored.sha256
    return Reply(headers=headers, length=stored.size)


@contextmanager
def resolver(bucket: Bucket) -> Iterator[BucketResolver]:
    with scripted_store(bucket) as endpoint:
        credentials = Credentials(options={"AWS_ENDPOINT_URL": endpoint})
        yield BucketResolver(ObjectReader(credentials, NetworkSettings(), environ={}))


def resolve(bucket: Bucket, key: str, *, pin: str = "") -> ResolvedSource:
    with resolver(bucket) as made:
        return made.resolve(parse_source(f"s3://models/{key}"), pin=pin)


def names(found: ResolvedSource, role: FileRole = FileRole.WEIGHTS) -> list[str]:
    return [file.name for file in found.files if file.role is role]


def test_an_object() -> None:
    found = resolve(Bucket({"a/model.gguf": Stored(sha256=DIGEST, size=7)}), "a/model.gguf")
    [file] = found.files
    assert (file.name, file.role, file.size, file.sha256) == ("model.gguf", FileRole.WEIGHTS, 7, DIGEST)
    assert (file.version, file.location) == ('"e1"', ObjectLocation("s3://models/a/model.gguf"))
    assert (found.uri, found.pin, found.size) == ("s3://models/a/model.gguf", "etag:e1", 7)


def test_an_object_needs_no_permission_to_list() -> None:
    bucket = Bucket({"model.gguf": Stored()} | dict.fromkeys(PARTS, Stored()), may_list=False)
    assert names(resolve(bucket, "model.gguf")) == ["model.gguf"]
    assert len(resolve(bucket, PARTS[0]).files) == 3


def test_a_key_with_special_characters_is_the_same_object_for_the_reader() -> None:
    key = "päth with spaces/100%/a+b=c.gguf"
    found = resolve(Bucket({key: Stored()}), quote(key))
    assert names(found) == ["a+b=c.gguf"]
    location = found.files[0].location
    assert isinstance(location, ObjectLocation)
    assert parse_source(location.uri) == parse_source(f"s3://models/{quote(key)}")


def test_all_parts_of_a_split_file() -> None:
    objects = {name: Stored(f"e{number}", size=number) for number, name in enumerate(PARTS, start=1)}
    found = resolve(Bucket(objects), PARTS[0])
    assert names(found) == [name.removeprefix("big/") for name in PARTS]
    assert found.size == 6
    assert re.fullmatch("objects:[0-9a-f]{64}", found.pin)
    changed = resolve(Bucket({**objects, PARTS[2]: Stored("e4", size=3)}), PARTS[0])
    assert changed.pin != found.pin


def test_missing_parts_are_named() -> None:
    with pytest.raises(SourceError, match=r"2 of them are missing: s3://.*00002-of-00003\.gguf, s3://.*00003-of-"):
        resolve(Bucket({PARTS[0]: Stored()}), PARTS[0])


def test_another_part_than_the_first_is_an_error() -> None:
    with pytest.raises(SourceError, match="name the first part"):
        resolve(Bucket(dict.fromkeys(PARTS, Stored())), PARTS[1])


@pytest.mark.parametrize(
    ("objects", "weights", "projectors"),
    [
        (["one/a.gguf", "one/README.md"], ["a.gguf"], []),
        (["one/deep/er/A.GGUF"], ["A.GGUF"], []),
        (["one/a.gguf", "one/mmproj-a-f16.gguf", "one/a.imatrix.gguf"], ["a.gguf"], ["mmproj-a-f16.gguf"]),
        (["one/a.gguf", "one-more/b.gguf", "ones.gguf"], ["a.gguf"], []),
        ([f"one/{name}" for name in reversed(PARTS)], [name.removeprefix("big/") for name in PARTS], []),
    ],
)
def test_a_folder_with_one_model(objects: list[str], weights: list[str], projectors: list[str]) -> None:
    found = resolve(Bucket(dict.fromkeys(objects, Stored())), "one")
    assert names(found) == weights
    assert names(found, FileRole.PROJECTOR) == projectors


@pytest.mark.parametrize(
    ("objects", "text"),
    [
        (
            ["one/a.gguf", "one/b.gguf"],
            r"several models; name one object: s3://models/one/a\.gguf, s3://models/one/b\.g",
        ),
        (["one/a.gguf", "one/x-mmproj.gguf", "one/y-mmproj.gguf"], "several projectors"),
        (["one/mmproj.gguf"], "no weights"),
        (["one/a.safetensors"], r"without a GGUF file; it has s3://models/one/a\.safetensors"),
        ([f"one/{PARTS[0]}", f"one/{PARTS[2]}"], r"1 of them are missing: s3://.*00002-of"),
        (["other.gguf"], "there is no such object, and none below it"),
    ],
)
def test_a_folder_that_is_not_one_model(objects: list[str], text: str) -> None:
    with pytest.raises(SourceError, match=text):
        resolve(Bucket(dict.fromkeys(objects, Stored())), "one")


def test_long_lists_are_shortened() -> None:
    bucket = Bucket({f"one/{number:03}.gguf": Stored() for number in range(100)})
    with pytest.raises(SourceError, match=r"and 80 more$"):
        resolve(bucket, "one")


def test_a_folder_with_too_many_objects_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "MAX_LISTED", 50)
    with pytest.raises(SourceError, match="more than 50 objects"):
        resolve(Bucket({f"one/{number:03}.txt": Stored() for number in range(51)}), "one")


@pytest.mark.parametrize("name", ["one/../x.gguf", "one//x.gguf", "one/./x.gguf", "one/a\x07b.gguf"])
def test_names_that_are_no_paths_are_an_error(name: str) -> None:
    with pytest.raises(SourceError, match=r"empty parts, .* or control characters; name one object"):
        resolve(Bucket({name: Stored()}, prefixed=False), "one")


@pytest.mark.parametrize("name", ["two/x.gguf", "one.gguf", "/x.gguf"])
def test_objects_outside_the_folder_are_ignored(name: str) -> None:
    with pytest.raises(SourceError, match="there is no such object"):
        resolve(Bucket({name: Stored()}, prefixed=False), "one")


def test_a_missing_object_in_a_bucket_that_must_not_be_listed() -> None:
    with pytest.raises(SourceError, match="HTTP 403 AccessDenied"):
        resolve(Bucket({}, may_list=False), "model.gguf")


def test_a_replaced_object_is_an_error_with_the_pin_of_the_old_one() -> None:
    bucket = Bucket({"model.gguf": Stored("e1")})
    pin = resolve(bucket, "model.gguf").pin
    assert resolve(bucket, "model.gguf", pin=pin).pin == pin
    bucket.objects["model.gguf"] = Stored("e2")
    with pytest.raises(SourceError, match=r"has been replaced since .*change the Model's source"):
        resolve(bucket, "model.gguf", pin=pin)


def test_a_pinned_version_is_found_after_the_object_was_replaced() -> None:
    bucket = Bucket({"model.gguf": Stored("e1", version="v1")})
    pin = resolve(bucket, "model.gguf").pin
    assert pin == "version:v1"
    bucket.objects = {"model.gguf": Stored("e2", version="v2"), "model.gguf?v1": Stored("e1", version="v1")}
    pinned = resolve(bucket, "model.gguf", pin=pin)
    assert pinned.pin == pin
    assert pinned.files[0].location == ObjectLocation("s3://models/model.gguf", "v1")
    assert resolve(bucket, "model.gguf").pin == "version:v2"
    del bucket.objects["model.gguf?v1"]
    with pytest.raises(SourceError, match=r"has been deleted; .*change the Model's source"):
        resolve(bucket, "model.gguf", pin=pin)


def test_a_pinned_version_in_a_folder() -> None:
    bucket = Bucket({"one/model.gguf": Stored("e1", version="v1")})
    pin = resolve(bucket, "one").pin
    bucket.objects |= {"one/model.gguf": Stored("e2", version="v2"), "one/model.gguf?v1": Stored("e1", version="v1")}
    assert resolve(bucket, "one", pin=pin).files[0].location == ObjectLocation("s3://models/one/model.gguf", "v1")


def test_an_object_without_an_identifier_cannot_be_pinned() -> None:
    with pytest.raises(SourceError, match="cannot be pinned"):
        resolve(Bucket({"model.gguf": Stored(etag="x" * 5000)}), "model.gguf")


@pytest.mark.parametrize("key", [".hidden.gguf", "x" * 252 + ".gguf", "a%5Cb.gguf", "snapshot.json"])
def test_a_name_that_no_snapshot_has_is_an_error(key: str) -> None:
    with pytest.raises(SourceError, match="is its file name"):
        resolve(Bucket({unquote(key): Stored()}), key)


def test_other_sources_are_a_mistake_of_the_caller() -> None:
    with resolver(Bucket({})) as made, pytest.raises(TypeError):
        made.resolve(parse_source("https://example.com/model.gguf"))
