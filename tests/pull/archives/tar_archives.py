"""Tar archives of a test, and the remote files in them."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile

import zstandard

from corral_core.sources.snapshot import FileRole
from corral_server.pull.remote_files import Archive, HttpLocation, RemoteFile


def tar(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def packed(data: bytes, kind: Archive) -> bytes:
    if kind is Archive.TAR_GZIP:
        return gzip.compress(data)
    return zstandard.compress(data) if kind is Archive.TAR_ZSTD else data


def remote(data: bytes, kind: Archive = Archive.TAR, member: str = "model.gguf") -> RemoteFile:
    digest = hashlib.sha256(data).hexdigest()
    location = HttpLocation("https://host/layer")
    return RemoteFile("model.gguf", FileRole.WEIGHTS, location, len(data), digest, archive=kind, member=member)
