"""Failed downloads: content that was downloaded as a whole and is wrong is not downloaded again soon.

    failures/<snapshot id>.json    the failed downloads of a source at a pin, in a store

- Only a ContentError is recorded: a further download would most likely meet it again, after hundreds of gigabytes.
- A pull within the delay fails at once with the recorded error. The delay doubles with each failure.
- A record is advice: one that is damaged, that cannot be written, or whose time is beyond its delay, as after the clock
  was set back, holds up no pull.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

from pydantic import Field, StrictFloat, StrictInt, StrictStr

from corral_core.base.json_codec import JsonCodec
from corral_core.base.received_json import parse_received_object
from corral_core.base.timestamps import format_time
from corral_core.sources.snapshot import snapshot_id
from corral_server.pull.errors import ContentError
from corral_server.system.durable_files import read_bounded, write_durably

FIRST_DELAY: Final = 600.0
LONGEST_DELAY: Final = 24 * 3600.0
FAILURE_AGE: Final = 3 * LONGEST_DELAY
"""Seconds after which a collection removes a record: the failures after that count from the first again."""
_MAX_ERROR: Final = 1500
_MAX_COUNT: Final = 1000
_LIMIT: Final = 32 * 1024


@dataclass(frozen=True, slots=True)
class FailedDownload:
    """``count`` failures in a row, the last with ``error``. ``retry_at`` in seconds since the epoch."""

    uri: Annotated[StrictStr, Field(max_length=4096)]
    pin: Annotated[StrictStr, Field(max_length=1024)]
    error: Annotated[StrictStr, Field(max_length=_MAX_ERROR)]
    count: Annotated[StrictInt, Field(ge=1, le=_MAX_COUNT)]
    retry_at: Annotated[StrictFloat, Field(ge=0, le=2**40)]

    @property
    def delay(self) -> float:
        """Seconds from the last failure to the next download."""
        return _delay(self.count)

    def raised(self, now: float) -> ContentError:
        """Return the error of a pull at the time ``now``."""
        times = "" if self.count == 1 else f" Failure {self.count} in a row."
        text = f"{self.error}.{times} It is downloaded again after {format_time(self.retry_at)}"
        return ContentError(text, retry_after=max(0.0, self.retry_at - now))


_CODEC: Final = JsonCodec(FailedDownload, "failed download")


class FailedDownloads:
    """Failed downloads of the store in the folder ``root``. ``clock`` returns seconds since the epoch."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._folder = root / "failures"
        self._clock = clock

    def check(self, uri: str, pin: str) -> None:
        """Raise the ContentError of the last download, if it is too early for another one."""
        failed, now = _read(self._path(uri, pin)), self._clock()
        if failed is not None and 0 < failed.retry_at - now <= failed.delay:
            raise failed.raised(now)

    def record(self, uri: str, pin: str, *, error: ContentError) -> ContentError:
        """Record a failure and return its error, which says when the source is downloaded again."""
        path, now = self._path(uri, pin), self._clock()
        before = _read(path)
        count = 1 if before is None else min(before.count + 1, _MAX_COUNT)
        failed = FailedDownload(uri, pin, str(error)[:_MAX_ERROR], count, now + _delay(count))
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            write_durably(path, json.dumps(_CODEC.encode(failed)).encode())
        return failed.raised(now)

    def forget(self, uri: str, pin: str) -> None:
        """Remove what is recorded of a source at a pin."""
        with contextlib.suppress(OSError):
            self._path(uri, pin).unlink()

    def forget_source(self, uri: str) -> bool:
        """Remove what is recorded of a source at any pin; returns whether there was something."""
        found = [path for path in self._paths() if (failed := _read(path)) is not None and failed.uri == uri]
        for path in found:
            with contextlib.suppress(OSError):
                path.unlink()
        return bool(found)

    def collect(self, before: float) -> None:
        """Remove the records that have not changed since ``before``, a time of the file system."""
        for path in self._paths():
            with contextlib.suppress(OSError):
                if path.lstat().st_mtime <= before:
                    path.unlink()

    def _path(self, uri: str, pin: str) -> Path:
        return self._folder / f"{snapshot_id(uri, pin)}.json"

    def _paths(self) -> Iterator[Path]:
        with contextlib.suppress(OSError):
            yield from list(self._folder.iterdir())


def _delay(failures: int) -> float:
    return float(min(FIRST_DELAY * 2 ** min(failures - 1, 16), LONGEST_DELAY))


def _read(path: Path) -> FailedDownload | None:
    """Return the record; None if there is none or it is damaged."""
    try:
        return _CODEC.decode(parse_received_object(read_bounded(path, _LIMIT), limit=_LIMIT))
    except (OSError, ValueError):
        return None
