"""State of a download that is not complete: which ranges of the file are on disk.

- The state is written after the data was synced: it never names a range that is not there.
- The file has two slots, which are written in turns, each with a digest: after a crash one of them is whole. Slots are
  overwritten in place, so that a full disk cannot keep a state from being saved.
- A state that cannot be read, or is that of another file, is none: the download starts from zero.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, StrictInt, StrictStr

from corral_core.base.json_codec import JsonCodec
from corral_core.base.received_json import parse_received_object
from corral_server.pull.download.ranges import RangeSet
from corral_server.system.durable_files import read_bounded

SLOT: Final = 16 * 1024
"""Bytes of a slot."""
_DIGEST_LENGTH: Final = 64
_MAX_RANGES: Final = 200
"""Ranges that are saved; more are pulled again after a crash."""
_MAX_TEXT: Final = 256
"""Characters of an identity or version; a download of a longer version starts from zero after a crash."""

_Offset = Annotated[StrictInt, Field(ge=0, lt=2**63)]


@dataclass(frozen=True, slots=True)
class DownloadState:
    """``identity`` is that of the remote file, ``version`` what the server called it; ``size`` in bytes or None."""

    identity: Annotated[StrictStr, Field(max_length=_MAX_TEXT)]
    version: Annotated[StrictStr, Field(max_length=_MAX_TEXT)]
    size: _Offset | None
    ranges: Annotated[tuple[tuple[_Offset, _Offset], ...], Field(strict=False, max_length=_MAX_RANGES)]
    sequence: _Offset = 0

    def done(self) -> RangeSet:
        """Return the ranges that are on disk. Raises ValueError if they are not ranges of the file."""
        done = RangeSet(self.ranges)
        if self.size is not None and done.end > self.size:
            raise ValueError("a range exceeds the file")
        return done


_CODEC = JsonCodec(DownloadState, "download state")


class StateFile:
    """Writes the states of one download, each into the other slot than the one before."""

    def __init__(self, path: Path) -> None:
        """Create the file, or continue it. Raises OSError."""
        last = load_state(path)
        self._sequence = 0 if last is None else last.sequence
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o664)
        try:
            if last is None:
                self._write(b" " * (2 * SLOT), 0)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        os.close(self._descriptor)

    def save(self, done: RangeSet, *, identity: str, version: str, size: int | None) -> None:
        """Save durably. Raises OSError."""
        self._sequence += 1
        known = version if len(version) <= _MAX_TEXT else ""
        state = DownloadState(identity[:_MAX_TEXT], known, size, tuple(done)[:_MAX_RANGES], self._sequence)
        text = json.dumps(_CODEC.encode(state)).encode()
        slot = hashlib.sha256(text).hexdigest().encode() + text
        self._write(slot.ljust(SLOT), self._sequence % 2 * SLOT)

    def _write(self, data: bytes, position: int) -> None:
        if os.pwrite(self._descriptor, data, position) != len(data):
            raise OSError(28, os.strerror(28))
        os.fdatasync(self._descriptor)


def load_state(path: Path) -> DownloadState | None:
    """Read the last state; None if there is none or it is damaged."""
    try:
        data = read_bounded(path, 2 * SLOT)
    except OSError:
        return None
    slots = [data[:SLOT], data[SLOT:]]
    states = [state for slot in slots if (state := _decode(slot)) is not None]
    return max(states, key=lambda state: state.sequence, default=None)


def _decode(slot: bytes) -> DownloadState | None:
    digest, text = slot[:_DIGEST_LENGTH], slot[_DIGEST_LENGTH:].rstrip(b" ")
    if hashlib.sha256(text).hexdigest().encode() != digest:
        return None
    try:
        state = _CODEC.decode(parse_received_object(text, limit=SLOT))
        state.done()
    except ValueError:
        return None
    return state
