"""Streaming reader of tar archives, for untrusted ones.

- Names are compared, never used as paths. Links, devices and sparse files are passed over.
- Headers are bounded: an extended header of more than ``MAX_EXTENDED`` bytes is an error (``tarfile`` reads it into
  memory whatever its size), and so are more than ``MAX_ENTRIES`` entries.
- Formats: POSIX ustar and pax (IEEE Std 1003.1-2017, pax, "ustar Interchange Format"), and GNU's long names and
  base-256 sizes (https://www.gnu.org/software/tar/manual/html_node/Standard.html).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

BLOCK: Final = 512
MAX_EXTENDED: Final = 2**20
MAX_ENTRIES: Final = 1_000_000
_REGULAR: Final = frozenset({b"0", b"\0", b"7"})
_MAX_SIZE: Final = 2**62


@dataclass(frozen=True, slots=True)
class TarEntry:
    """``name`` as it is in the archive; ``size`` in bytes of the data that follows."""

    name: str
    size: int
    regular: bool


class TarReader:
    """Reads entries in order; ``read`` returns at most as many bytes as it is asked for, none at the end.

    ``skip`` passes over bytes without reading them, where that is possible.
    """

    def __init__(self, read: Callable[[int], bytes], *, skip: Callable[[int], object] | None = None) -> None:
        self._read = read
        self._skip_bytes = skip
        self._left = 0
        self._padding = 0
        self._entries = 0

    def next(self) -> TarEntry | None:
        """Pass over the data that was not read and return the next entry, None at the end. Raises ValueError."""
        name, size = None, None
        while True:
            self._left, self._padding = self._left + self._padding, 0
            self.skip_data(self._left)
            header = self._header()
            if header is None:
                return None
            kind, length = header[156:157], _number(header[124:136])
            self._left, self._padding = length, -length % BLOCK
            if kind == b"L":
                name = _text(self._extended())
            elif kind == b"x":
                name, size = _pax(self._extended(), name, size)
            elif kind not in (b"g", b"K"):
                length = length if size is None else size
                self._left, self._padding = length, -length % BLOCK
                return TarEntry(_name(header) if name is None else name, length, kind in _REGULAR)

    def data(self, most: int) -> bytes:
        """Return the next bytes of the present entry's data, none at its end. Raises ValueError if it is cut off."""
        wanted = min(most, self._left)
        if wanted == 0:
            return b""
        chunk = self._read(wanted)
        if not chunk:
            raise ValueError("the archive ends in the middle of a file")
        self._left -= len(chunk)
        return chunk

    def skip_data(self, count: int) -> None:
        """Pass over the next ``count`` bytes of the present entry's data. Raises ValueError if it is cut off."""
        if self._skip_bytes is not None:
            self._skip_bytes(count)
            self._left -= count
            return
        end = self._left - count
        while self._left > end:
            self.data(min(2**18, self._left - end))

    def _header(self) -> bytes | None:
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise ValueError(f"the archive has more than {MAX_ENTRIES} entries")
        header = self._block()
        if header is None or not header.strip(b"\0"):
            return None
        if sum(header[:148]) + 8 * 32 + sum(header[156:]) != _number(header[148:156]):
            raise ValueError("a header of the archive has a wrong checksum")
        return header

    def _block(self) -> bytes | None:
        block = b""
        while len(block) < BLOCK:
            chunk = self._read(BLOCK - len(block))
            if not chunk:
                if block:
                    raise ValueError("the archive ends in the middle of a header")
                return None
            block += chunk
        return block

    def _extended(self) -> bytes:
        if self._left > MAX_EXTENDED:
            raise ValueError(f"an extended header of the archive has more than {MAX_EXTENDED} bytes")
        parts = []
        while chunk := self.data(2**16):
            parts.append(chunk)
        return b"".join(parts)


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        value = int.from_bytes(field, "big") & ~(0xFF << (8 * (len(field) - 1))) if field[0] == 0x80 else -1
    else:
        digits = field.split(b"\0", 1)[0].strip()
        if not all(digit in b"01234567" for digit in digits):
            raise ValueError("a number of the archive is not octal")
        value = int(digits, 8) if digits else 0
    if not 0 <= value <= _MAX_SIZE:
        raise ValueError("a size of the archive is not possible")
    return value


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode("utf-8", "replace")


def _name(header: bytes) -> str:
    name, prefix = _text(header[:100]), _text(header[345:500])
    return f"{prefix}/{name}" if prefix and header[257:262] == b"ustar" and header[257:265] != b"ustar  \0" else name


def _pax(data: bytes, name: str | None, size: int | None) -> tuple[str | None, int | None]:
    """Return the name and size of pax records of the form ``LENGTH KEY=VALUE\\n``."""
    while data:
        digits, space, _ = data.partition(b" ")
        if not space or not digits.isdigit() or len(digits) > 10:
            raise ValueError("an extended header of the archive is damaged")
        length = int(digits)
        record, data = data[len(digits) + 1 : length], data[length:]
        if length <= len(digits) + 1 or not record.endswith(b"\n"):
            raise ValueError("an extended header of the archive is damaged")
        key, _, value = record[:-1].partition(b"=")
        if key == b"path":
            name = _text(value)
        elif key == b"size":
            if not value.isdigit() or len(value) > 19 or int(value) > _MAX_SIZE:
                raise ValueError("a size of the archive is not possible")
            size = int(value)
        elif key.startswith(b"GNU.sparse."):
            raise ValueError("the archive has sparse files, which are not supported")
    return name, size
