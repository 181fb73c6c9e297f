"""Metadata of weights in archives, read before the download."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from corral_core.base.errors import SourceError
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.sources.snapshot import FileRole
from corral_core.weights.gguf import GGUFHeader
from corral_core.weights.gguf_metadata import metadata_from_header, read_metadata
from corral_server.pull.archives import header
from corral_server.pull.errors import TransientError
from corral_server.pull.remote_files import Archive, RemoteFile, ResolvedSource
from corral_server.pull.remote_metadata import read_remote_metadata, translation_size
from tests.pull.archives.tar_archives import packed, remote, tar
from tests.pull.download.range_server import Fault, RangeServer
from tests.support.gguf_files import gguf_bytes
from tests.support.gguf_split import split_gguf
from tests.support.tiny_model import write_tiny_model

MIB = 2**20
NOISE = random.Random(1).randbytes(8 * MIB)
KINDS = (Archive.TAR, Archive.TAR_GZIP, Archive.TAR_ZSTD)
every_kind = pytest.mark.parametrize("kind", KINDS)
every_compression = pytest.mark.parametrize("kind", KINDS[1:])


def metadata(server: RangeServer, *files: RemoteFile) -> ModelMetadata | None:
    return read_remote_metadata(ResolvedSource("oci://host/model", "1", files), server, lambda _file: None)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model and bytes that do not compress, so that it is larger than what is read of it."""
    return write_tiny_model(tmp_path_factory.mktemp("model")).read_bytes() + NOISE


@every_kind
@pytest.mark.parametrize("member", ["models/model.gguf", "models/*.gguf"])
def test_the_metadata_is_that_of_the_file(tmp_path: Path, weights: bytes, kind: Archive, member: str) -> None:
    (tmp_path / "model.gguf").write_bytes(weights)
    data = packed(tar({"README.md": b"x" * 5000, "./models/model.gguf": weights}), kind)
    server = RangeServer(data)
    assert metadata(server, remote(data, kind, member)) == read_metadata(tmp_path / "model.gguf")
    assert server.sent < 4 * MIB


def test_files_before_it_in_a_plain_archive_are_passed_over(weights: bytes) -> None:
    data = tar({"mmproj.gguf": NOISE * 2, "model.gguf": weights})
    server = RangeServer(data)
    assert metadata(server, remote(data)) is not None
    assert server.sent < 4 * MIB


def test_parts_of_a_split_file_in_a_plain_archive(tmp_path: Path) -> None:
    parts = split_gguf(write_tiny_model(tmp_path), tmp_path, parts=3)
    data = tar({part.name: part.read_bytes() for part in parts})
    files = [replace(remote(data, member=part.name), name=part.name) for part in parts]
    found = metadata(RangeServer(data), *files)
    assert found is not None
    assert found.size == sum(part.stat().st_size for part in parts)


@every_compression
def test_a_header_far_behind_the_beginning_is_not_known(
    weights: bytes, kind: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header, "MAX_DECOMPRESSED", 4 * MIB)
    data = packed(tar({"mmproj.gguf": NOISE, "model.gguf": weights}), kind)
    server = RangeServer(data)
    assert metadata(server, remote(data, kind)) is None
    assert server.sent < len(data)


@every_compression
def test_a_bomb_before_the_file_is_bounded(kind: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "MAX_DECOMPRESSED", 4 * MIB)
    data = packed(tar({"zeros": bytes(64 * MIB), "model.gguf": gguf_bytes()}), kind)
    assert metadata(RangeServer(data), remote(data, kind)) is None


@every_kind
def test_weights_whose_tensors_exceed_the_file_are_refused_before_the_download(kind: Archive) -> None:
    data = packed(tar({"model.gguf": gguf_bytes()[:-40]}), kind)
    with pytest.raises(SourceError, match="truncated"):
        metadata(RangeServer(data), remote(data, kind))


@every_kind
def test_an_archive_without_the_file_is_refused_before_the_download(kind: Archive) -> None:
    data = packed(tar({"other": b"x"}), kind)
    with pytest.raises(SourceError, match="no file"):
        metadata(RangeServer(data), remote(data, kind))


@every_kind
@pytest.mark.parametrize("end", [0, 100, 700])
def test_a_damaged_archive_is_refused_before_the_download(kind: Archive, end: int) -> None:
    data = packed(tar({"model.gguf": gguf_bytes() + NOISE[:5000]}), kind)[:end] + b"\xff" * 100
    with pytest.raises(SourceError, match=r"damaged|GGUF|no file"):
        metadata(RangeServer(data), remote(data, kind))


@every_kind
def test_an_error_of_the_network_is_one_that_passes(weights: bytes, kind: Archive) -> None:
    data = packed(tar({"model.gguf": weights}), kind)
    with pytest.raises(TransientError, match="cut"):
        metadata(RangeServer(data, iter([Fault(after=1000)])), remote(data, kind))


def test_room_is_needed_for_the_largest_archive_beside_all_files() -> None:
    file = RemoteFile("m.gguf", FileRole.WEIGHTS, remote(b"").location, 100)
    archived = replace(file, archive=Archive.TAR_GZIP, size=60, member_size=90)
    unknown = replace(archived, size=40, member_size=None)
    assert ResolvedSource("oci://host/model", "1", (file, archived, unknown)).room == 100 + 90 + 40 + 60
    assert ResolvedSource("oci://host/model", "1", (file,)).room == 100


def test_archived_weights_are_not_taken_for_translated_ones() -> None:
    found = metadata_from_header(GGUFHeader(3, {"general.architecture": "llama"}, (), 0), 90)
    file = replace(remote(b"x" * 60), archive=Archive.TAR_GZIP, member_size=90)
    assert translation_size(ResolvedSource("oci://host/model", "1", (file,)), found) == 0
    assert translation_size(ResolvedSource("oci://host/model", "1", (replace(file, member_size=80),)), found) == 90
    assert translation_size(ResolvedSource("oci://host/model", "1", (replace(file, member_size=None),)), found) == 0
