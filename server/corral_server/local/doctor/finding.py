"""What a check of ``corral doctor`` has found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum


class Level(StrEnum):
    """``FAIL``: models cannot be served. ``WARN``: something does not work, or not as fast as it could."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report. ``advice`` says what to do; it is empty if there is nothing to do."""

    check: str
    level: Level
    text: str
    advice: str = ""

    def to_json(self) -> dict[str, str]:
        return asdict(self)


def ok(check: str, text: str) -> Finding:
    return Finding(check, Level.OK, text)


def warn(check: str, text: str, advice: str) -> Finding:
    return Finding(check, Level.WARN, text, advice)


def fail(check: str, text: str, advice: str) -> Finding:
    return Finding(check, Level.FAIL, text, advice)
