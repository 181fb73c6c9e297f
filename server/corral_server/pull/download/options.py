"""Options of downloads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from corral_core.base.errors import InvalidQuantity, InvalidSetting
from corral_core.base.quantities import parse_quantity
from corral_core.base.settings import duration_setting, str_setting

RATE_SETTING: Final = "CORRAL_PULL_RATE_LIMIT"
STALL_SETTING: Final = "CORRAL_PULL_STALL_TIMEOUT"
MINIMUM_RATE: Final = 1024
"""Bytes/s."""
_CLIENT_SHARE: Final = 1.5
"""A connection is given up after this multiple of the client's own timeout, which usually ends it."""


def download_options(environ: Mapping[str, str]) -> DownloadOptions:
    """Read the settings from environment variables. Raises InvalidSetting."""
    stall = duration_setting(environ, STALL_SETTING, default=30.0, minimum=1.0)
    return DownloadOptions(rate_limit=_rate(str_setting(environ, RATE_SETTING)), stall=_CLIENT_SHARE * stall)


def _rate(text: str) -> int | None:
    """Return bytes/s, None without a limit. Raises InvalidSetting."""
    if text in ("", "0"):
        return None
    try:
        rate = int(parse_quantity(text))
    except InvalidQuantity:
        rate = 0
    if rate < MINIMUM_RATE:
        form = "it must be a quantity of bytes per second such as 10M, at least 1Ki, or 0 for no limit"
        raise InvalidSetting(f"{RATE_SETTING}={text!r} is not allowed: {form}")
    return rate


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """Sizes in bytes, times in seconds.

    - ``parallel``: connections of one file. ``rate_limit``: bytes/s of all files of a downloader, None for no limit.
    - ``stall``: a connection without a byte for so long is given up, and its range is opened again. It is longer than
      the client's own timeout, after which the thread of such a connection ends.
    - ``attempts``: failures in a row, without a byte of the file between them, after which a download fails.
    - ``first_delay``, ``max_delay``: delays between attempts, doubled each time, with jitter.
    - ``max_retry_after``: bound of a server's Retry-After.
    - ``save_interval``: time between two savings of the state; after a crash at most so much is pulled again.
    - ``first_part``, ``min_part``, ``max_part``: sizes of a request's range, which takes ``part_seconds``.
    - ``min_split``: rest of a range that is shared with an idle connection at the end of a file.
    - ``buffer``: bytes of one read; each connection has one buffer.
    """

    parallel: int = 8
    rate_limit: int | None = None
    stall: float = 45.0
    attempts: int = 8
    first_delay: float = 0.5
    max_delay: float = 30.0
    max_retry_after: float = 600.0
    save_interval: float = 2.0
    progress_interval: float = 0.2
    first_part: int = 8 * 2**20
    min_part: int = 2**20
    max_part: int = 64 * 2**20
    min_split: int = 512 * 1024
    part_seconds: float = 8.0
    buffer: int = 2**20
