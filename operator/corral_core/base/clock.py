"""Clock for ages and deadlines: Unix seconds that are not set while the process runs.

The time of day is set when a node synchronizes its clock, by minutes if it was wrong. A deadline that is compared with
it would pass at once, or minutes too late.
"""

from __future__ import annotations

import time
from typing import Final

_OFFSET: Final = time.time() - time.monotonic()


def steady_time() -> float:
    """Return the Unix seconds at the start of this process plus those that have passed since."""
    return time.monotonic() + _OFFSET
