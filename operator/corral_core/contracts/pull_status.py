"""Pull status: the contract between a puller and the operator or local mode.

- ``GET /progress`` returns one status; ``GET /progress?watch=true`` streams one JSON line when it changes, at most
  twice a second, and a heartbeat line at least every ``HEARTBEAT_INTERVAL`` seconds.
- A puller that has pulled everything ends with exit code 0 and the ids of the snapshots as its termination message. One
  that fails ends with another code and a message that begins with the reason.
- A puller reads what servers send, so ``parse_pull_status`` bounds every number and raises only ValueError.
- Sizes are bytes, rates bytes per second.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator, ConfigDict, Field, StrictFloat, StrictInt, StrictStr
from pydantic.alias_generators import to_camel

from corral_core.base.json_codec import JsonCodec
from corral_core.base.received_json import parse_received_object

HEARTBEAT_INTERVAL: Final = 5.0
"""Seconds between two lines of an unchanged status."""
MAX_PULL_STATUS_BYTES: Final = 4096
MAX_FAILURE: Final = 2000
"""Characters of a failure; Kubernetes keeps 4,096 bytes of a termination message."""

_MAX_BYTES: Final = 2**53
_PULLED: Final = "corral-snapshots:"
_SNAPSHOT: Final = re.compile(r"[0-9a-f]{32}")

ByteCount = Annotated[StrictInt, Field(ge=0, le=_MAX_BYTES)]


class PullFailure(StrEnum):
    """Reason of a failed pull. A ``RETRYING`` puller starts again by itself; the others need a change first."""

    RETRYING = "Retrying"
    FAILED = "PullFailed"
    STORE_FULL = "StoreFull"


@dataclass(frozen=True, slots=True)
class PullStatus:
    """Progress over all sources of a Model. ``total`` is None if a source does not say its size.

    ``stage`` is what the puller does: resolving, pulling, verifying or publishing.
    """

    __pydantic_config__ = ConfigDict(alias_generator=to_camel)

    completed: ByteCount
    total: ByteCount | None = None
    rate: Annotated[StrictFloat, Field(ge=0, le=_MAX_BYTES)] = 0.0
    stage: Annotated[StrictStr, AfterValidator(lambda text: text[:32])] = ""

    @property
    def seconds_left(self) -> int | None:
        """Expected seconds until the end, None if total or rate are not known."""
        if self.total is None or self.rate < 1:
            return None
        return min(round(max(self.total - self.completed, 0) / self.rate), 10**9)

    @property
    def percent(self) -> int | None:
        """Completed part, rounded down, None if the total is not known."""
        return None if not self.total else min(100 * self.completed // self.total, 100)

    def to_json(self) -> dict[str, object]:
        return _CODEC.encode(self)

    @classmethod
    def from_json(cls, data: object) -> PullStatus:
        """Raises ValueError if a field is missing, has another type or is out of bounds."""
        return _CODEC.decode(data)


_CODEC: Final = JsonCodec(PullStatus, "pull status")


def parse_pull_status(line: bytes) -> PullStatus:
    """Parse a line of ``/progress``. Raises ValueError, and nothing else."""
    return PullStatus.from_json(parse_received_object(line, limit=MAX_PULL_STATUS_BYTES))


def encode_pulled(snapshots: Sequence[str]) -> str:
    """Return the termination message of a finished pull: the snapshot of each source, in the order of the sources."""
    return _PULLED + ",".join(snapshots)


def decode_pulled(message: str) -> tuple[str, ...]:
    """Return the snapshots of a finished pull. Raises ValueError if the message is not that of one."""
    text = message.strip()
    snapshots = tuple(text.removeprefix(_PULLED).split(","))
    if not text.startswith(_PULLED) or not all(_SNAPSHOT.fullmatch(one) for one in snapshots):
        raise ValueError("the termination message has no snapshots")
    return snapshots


def encode_failure(reason: PullFailure, text: str) -> str:
    """Return the termination message of a failed pull."""
    return f"{reason}: {' '.join(text.split())}"[:MAX_FAILURE]


def decode_failure(message: str) -> tuple[PullFailure, str]:
    """Return reason and text of a failed pull; a message without a known reason is that of a puller that was killed."""
    reason, colon, text = message.strip()[:MAX_FAILURE].partition(": ")
    if colon and reason in PullFailure.__members__.values():
        return PullFailure(reason), text
    return PullFailure.RETRYING, message.strip()[:MAX_FAILURE]
