"""One attempt to download a file: from the state on disk, or from zero, to a verified partial file."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import Final

from corral_core.base.errors import GGUFError
from corral_core.weights.gguf import read_header
from corral_server.pull.download.connections import Connections
from corral_server.pull.download.hashing import FrontHasher
from corral_server.pull.download.options import DownloadOptions
from corral_server.pull.download.partial import Descriptor, PartialFile
from corral_server.pull.download.rates import RateLimit
from corral_server.pull.download.report import Report
from corral_server.pull.download.room import check_room
from corral_server.pull.download.saver import StateSaver
from corral_server.pull.download.transfer import Refresh, Transfer
from corral_server.pull.errors import ContentError, PullCancelled, PullError
from corral_server.pull.progress import PullStage
from corral_server.pull.remote_files import Archive, RangeReader, RemoteFile
from corral_server.pull.store import WeightsStore

_CANCEL_TIMEOUT: Final = 0.6
_SAVE_TIMEOUT: Final = 30.0
_MAGIC: Final = b"GGUF"


class WrongContent(PullError):
    """A downloaded file whose digest is not that of the source, or that ends before its tensors do.

    ``end`` is the number of bytes of an incomplete file, None for a wrong digest.
    """

    def __init__(self, text: str, *, end: int | None = None) -> None:
        super().__init__(text)
        self.end = end


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A verified partial file. ``sha256`` is that of the bytes on disk."""

    descriptor: Descriptor
    sha256: str
    size: int


class Attempt:
    """Downloads ``file`` to ``partial``, whose lock is held."""

    def __init__(
        self,
        store: WeightsStore,
        file: RemoteFile,
        *,
        partial: PartialFile,
        reader: RangeReader,
        options: DownloadOptions,
        limit: RateLimit,
        cancel: threading.Event,
        report: Report,
        refresh: Refresh | None,
    ) -> None:
        self._store = store
        self._file = file
        self._partial = partial
        self._reader = reader
        self._cancel = cancel
        self._report = report
        state = partial.resume()
        done = state.done()
        if not done:
            partial.discard()  # before the room is counted: what cannot be continued takes some of it
        if state.size is not None:
            check_room(store, state.size - done.size, name=file.name, key=partial.key)
        self._descriptor = Descriptor(partial.data)
        if state.size is not None:
            os.ftruncate(self._descriptor.number, state.size)
        self._transfer = Transfer(
            file,
            self._descriptor,
            done=done,
            version=state.version,
            size=state.size,
            options=options,
            limit=limit,
            on_total=self._prepare,
            refresh=refresh,
        )

    def run(self) -> Downloaded:
        """Download and verify. Raises WrongContent and what ``Downloader.fetch`` raises, also OSError."""
        saver = StateSaver(self._transfer, self._partial)
        hasher = FrontHasher(self._descriptor.number, self._transfer.front)
        timeout = _CANCEL_TIMEOUT
        try:
            self._wait_for_bytes()
            self._verify(hasher)
            timeout = _SAVE_TIMEOUT
        finally:
            self._transfer.stop()
            hasher.stop()
            saver.close(timeout if self._cancel.is_set() else _SAVE_TIMEOUT)
        if saver.error is not None:
            raise saver.error
        digest = hasher.hexdigest()
        if self._file.sha256 not in (None, digest):
            raise WrongContent(f"{self._file.name} has the sha256 {digest} instead of {self._file.sha256}")
        if self._transfer.assumed_size and self._file.sha256 is None and self._file.archive is Archive.NONE:
            self._check_end()
        return Downloaded(self._descriptor, digest, hasher.position)

    def discard(self) -> None:
        """Delete the partial file and free its blocks: this attempt still has it open, and the next one needs room."""
        self._partial.discard()
        if os.fstat(self._descriptor.number).st_nlink == 0:  # another process may have published it
            os.ftruncate(self._descriptor.number, 0)

    def _check_end(self) -> None:
        """Check that the tensors end within a file of unknown size: a connection that is cut off ends its body too.

        Every role is a GGUF file. Raises WrongContent, and ContentError for another format, whose end is not known.
        """
        name, magic = self._file.name, os.pread(self._descriptor.number, len(_MAGIC), 0)
        try:
            read_header(self._partial.data)
        except GGUFError as error:
            if magic and not _MAGIC.startswith(magic):
                self.discard()
                raise ContentError(
                    f"{name} cannot be checked: the server names no size, and it is no GGUF file"
                ) from error
            end = self._transfer.total
            raise WrongContent(f"{name} is incomplete: the server names no size, and {error}", end=end) from error

    def _prepare(self, total: int) -> None:
        """Reserve room when the server has said the size."""
        check_room(self._store, total, name=self._file.name, key=self._partial.key)
        os.ftruncate(self._descriptor.number, total)

    def _wait_for_bytes(self) -> None:
        transfer = self._transfer
        connections = Connections(transfer, self._reader) if not transfer.finished else None
        while not transfer.finished and transfer.error is None:
            self._report(PullStage.PULLING, transfer.completed, total=transfer.total)
            self._check_cancelled()
            transfer.wait(transfer.options.progress_interval)
            if connections is not None:
                connections.replace_hanging()
        self._check_cancelled()
        if transfer.error is not None:
            raise transfer.error

    def _verify(self, hasher: FrontHasher) -> None:
        while not hasher.finish(self._transfer.options.progress_interval):
            self._check_cancelled()
            self._report(PullStage.VERIFYING, hasher.position, total=self._transfer.total)

    def _check_cancelled(self) -> None:
        if self._cancel.is_set():
            raise PullCancelled(f"the pull of {self._file.name} was cancelled; what is on disk stays for the next one")
