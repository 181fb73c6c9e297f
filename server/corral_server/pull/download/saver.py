"""Saves the state of a transfer while it runs: data is synced first, then the state is written.

A thread of its own does it, since a sync may take seconds. The first state is saved at once: it reserves the room.
"""

from __future__ import annotations

import os
import threading

from corral_server.pull.download.partial import PartialFile
from corral_server.pull.download.state import StateFile
from corral_server.pull.download.transfer import Transfer


class StateSaver:
    """Saves until it is closed; an error ends the transfer. The constructor raises OSError.

    ``error`` is what could not be written. A file system may report such an error once: a later sync of the data, as
    before its publication, can succeed although the data is lost (fsync(2), "errors").
    """

    def __init__(self, transfer: Transfer, partial: PartialFile) -> None:
        self._transfer = transfer
        self._partial = partial
        self._closing = threading.Event()
        self._given_up = False
        self._saved = -1
        self.error: OSError | None = None
        self._file = StateFile(partial.state)
        self._thread = threading.Thread(target=self._run, name="pull-state", daemon=True)
        self._thread.start()

    def close(self, timeout: float) -> None:
        """Save once more, for ``timeout`` seconds at most."""
        self._closing.set()
        self._thread.join(timeout)
        self._given_up = True

    def _run(self) -> None:
        try:
            self._save()
            while not self._closing.wait(self._transfer.options.save_interval):
                self._save()
            self._save()
        except OSError as error:
            self.error = error
            self._transfer.stop(error)
        finally:
            self._file.close()

    def _save(self) -> None:
        transfer = self._transfer
        done = transfer.ranges()
        if done.size == self._saved:
            return
        os.fdatasync(transfer.descriptor.number)
        if not self._given_up:
            self._file.save(done, identity=self._partial.identity, version=transfer.version, size=transfer.total)
            self._saved = done.size
