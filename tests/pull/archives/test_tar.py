"""Tar reader: what ``tarfile`` writes is read alike, and what is damaged or hostile is an error."""

from __future__ import annotations

import io
import tarfile
from typing import Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corral_server.pull.archives.tar import MAX_EXTENDED, TarReader

NAMES = ["a", "models/model.gguf", "./x", "d" * 90 + "/" + "e" * 60, "x" * 300, "ä/ö.gguf", "/absolute", "../up"]


def archive(members: dict[str, bytes], format: int) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


def read_all(data: bytes) -> dict[str, bytes]:
    tar, found = TarReader(io.BytesIO(data).read), {}
    while (entry := tar.next()) is not None:
        content = b""
        while chunk := tar.data(1000):
            content += chunk
        assert len(content) == entry.size
        if entry.regular:
            found[entry.name] = content
    return found


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_tarfile_are_read(format: int) -> None:
    members = {name: bytes([number]) * (number * 511) for number, name in enumerate(NAMES)}
    assert read_all(archive(members, format)) == members


def test_the_old_format_is_read() -> None:
    members = {"a": b"1", "d" * 90 + "/" + "e" * 60: b"2" * 512}
    assert read_all(archive(members, tarfile.USTAR_FORMAT)) == members


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_sizes_of_more_than_8_gib_are_read(format: Literal[1, 2]) -> None:
    info = tarfile.TarInfo("large")
    info.size = 2**34
    entry = TarReader(io.BytesIO(info.tobuf(format)).read).next()
    assert entry is not None
    assert (entry.name, entry.size) == ("large", 2**34)


def test_links_and_folders_are_no_files() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo("name")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    assert read_all(file.getvalue()) == {}


def test_data_that_is_not_read_is_passed_over() -> None:
    tar = TarReader(io.BytesIO(archive({"a": b"x" * 1000, "b": b"y"}, tarfile.PAX_FORMAT)).read)
    names = []
    while (entry := tar.next()) is not None:
        names.append(entry.name)
    assert names == ["a", "b"]


def header(kind: bytes, size: int) -> bytes:
    info = tarfile.TarInfo("x")
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "data",
    [
        header(b"x", MAX_EXTENDED + 1),
        header(b"L", 2**40),
        header(b"x", 5) + b"9 a=b".ljust(512, b"\0"),
        header(b"x", 8) + b"8 size=\n".ljust(512, b"\0"),
        header(b"x", 30) + b"30 size=99999999999999999999".ljust(29, b"9") + b"\n" + bytes(482),
        header(b"x", 22) + b"22 GNU.sparse.major=1\n".ljust(512, b"\0"),
        header(b"0", 100),
        header(b"0", 100)[:300],
        b"not a tar archive".ljust(512, b"?"),
    ],
)
def test_damaged_and_hostile_archives_are_errors(data: bytes) -> None:
    with pytest.raises(ValueError, match="archive"):
        read_all(data)


@given(st.binary(max_size=2000), st.integers(0, 3000), st.integers(0, 255))
@example(b"", 124, 0x80)
@example(b"", 124, 0xFF)
def test_value_error_is_the_only_error(tail: bytes, position: int, value: int) -> None:
    data = bytearray(archive({"x" * 200: b"1" * 600}, tarfile.PAX_FORMAT)[:3072] + tail)
    data[min(position, len(data) - 1)] = value
    for damaged in (bytes(data), tail):
        try:
            read_all(damaged)
        except ValueError:
            continue
