"""Report of the duration of each test level, and of the levels that were not run with the reason.

The report follows a run of the whole suite. The fixture of a level skips its tests where its requirements are missing.
With CORRAL_REQUIRE_CLUSTER=1 such a skip is a failure for the levels 3 and 4, so that a missing level is noticed;
CORRAL_REQUIRE_CLIENTS=1 does the same for the tests marked ``clients``, CORRAL_REQUIRE_VULKAN=1 for those marked
``vulkan``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import pytest


@dataclass
class Level:
    """Counts of one level's tests in this run."""

    title: str
    ran: int = 0
    deselected: int = 0
    seconds: float = 0.0
    skipped: Counter[str] = field(default_factory=Counter)

    def duration_line(self) -> str:
        return f"{self.seconds:7.1f} s  {self.title}: {self.ran} run"

    def missing_line(self) -> str | None:
        """Return a line with what was not run and why, or None if all tests were run."""
        if self.skipped:
            count = sum(self.skipped.values())
            share = "not run" if not self.ran else f"{count} of {count + self.ran} tests not run"
            return f"{self.title}: {share}: {'; '.join(sorted(self.skipped))}"
        if self.deselected and not self.ran:
            return f"{self.title}: not run: deselected ({self.deselected} tests)"
        return None if self.ran else f"{self.title}: not run: it has no test yet"


_REQUIRED = {
    "clients": "CORRAL_REQUIRE_CLIENTS",
    "vulkan": "CORRAL_REQUIRE_VULKAN",
    "cluster": "CORRAL_REQUIRE_CLUSTER",
    "node": "CORRAL_REQUIRE_CLUSTER",
}
"""Setting that turns skipped tests of a level into failures."""
_LEVELS = pytest.StashKey[dict[str, Level]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LEVELS] = {
        "values": Level("level 1, values"),
        "process": Level("level 2, processes"),
        "vulkan": Level("level 2, GPUs, on Mesa's software device"),
        "clients": Level("level 2, clients that are built or have an environment of their own"),
        "cluster": Level("level 3, API server"),
        "node": Level("level 4, a real node with image and chart"),
    }


def _name(item: pytest.Item) -> str:
    return next(
        (marker for marker in ("node", "cluster", "clients", "vulkan", "process") if item.get_closest_marker(marker)),
        "values",
    )


def pytest_deselected(items: Sequence[pytest.Item]) -> None:
    for item in items:
        item.config.stash[_LEVELS][_name(item)].deselected += 1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    level = item.config.stash[_LEVELS][_name(item)]
    level.seconds += report.duration
    if report.skipped:
        reason = _reason(report)
        required = _REQUIRED.get(_name(item), "")
        if required and os.environ.get(required) == "1":
            report.outcome = "failed"
            report.longrepr = f"{required}=1, and this test cannot run: {reason}"
        else:
            level.skipped[reason] += 1
    elif report.when == "call" or report.failed:
        level.ran += 1
    return report


def _reason(report: pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
    return text.removeprefix("Skipped: ")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return  # tests were selected by name, so levels are missing on purpose
    levels = config.stash[_LEVELS].values()
    _section(terminalreporter, "time by level", [level.duration_line() for level in levels if level.ran])
    _section(terminalreporter, "levels not run", [line for level in levels if (line := level.missing_line())])


def _section(reporter: pytest.TerminalReporter, title: str, lines: Sequence[str]) -> None:
    if lines:
        reporter.section(title)
    for line in lines:
        reporter.write_line(line)
