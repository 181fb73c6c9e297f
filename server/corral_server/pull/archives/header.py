"""Beginning of a file in a remote archive, as a file object: the header of weights is read before the download.

- An archive that is not compressed is read by ranges: the files before the wanted one are passed over.
- A compressed one is decompressed from its start, up to ``MAX_DECOMPRESSED`` bytes. A GGUF file fills nearly all of its
  archive, so its header is there.
- Reading goes forward.
"""

from __future__ import annotations

import io
from typing import Final

from corral_server.pull.archives.members import Decompressed, damaged, find_member
from corral_server.pull.archives.tar import TarReader
from corral_server.pull.remote_files import Archive, RangeReader, RemoteFile
from corral_server.pull.remote_header import RemoteHeader

MAX_DECOMPRESSED: Final = 256 << 20
"""The longest known headers have 30 MB."""


class OutOfReach(Exception):
    """A header that is too far behind the beginning of a compressed archive to be read before the download."""


class ArchivedHeader:
    """The member ``file.member`` of the archive; ``size`` is the member's in bytes.

    The methods and the constructor raise OutOfReach, SourceError if the archive is damaged or lacks the member, and
    what ``RangeReader.open`` raises.
    """

    def __init__(self, reader: RangeReader, file: RemoteFile) -> None:
        source = RemoteHeader(reader, file)
        self._name = file.name
        self._position = 0
        if file.archive is Archive.TAR:
            self._tar = TarReader(source.read, skip=lambda count: source.seek(count, io.SEEK_CUR))
        else:
            stream = Decompressed(
                source, file.archive, name=file.name, bound=MAX_DECOMPRESSED, refused=lambda: OutOfReach(file.name)
            )
            self._tar = TarReader(stream.read)
        try:
            self.size = find_member(self._tar, file.member).size
        except ValueError as error:
            raise damaged(file.name, error) from error

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes, none at the end."""
        try:
            data = self._tar.data(size)
        except ValueError as error:
            raise damaged(self._name, error) from error
        self._position += len(data)
        return data

    def seek(self, offset: int) -> int:
        """Pass over the data up to a larger offset."""
        try:
            self._tar.skip_data(offset - self._position)
        except ValueError as error:
            raise damaged(self._name, error) from error
        self._position = offset
        return offset
