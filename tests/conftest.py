"""Says at the end of a whole run how long each level of test took, and which was not run and what it lacked.

A level that cannot run skips, with the reason from its own fixture. Where the machine is known to have all that the
cluster level needs, CORRAL_REQUIRE_CLUSTER=1 turns each such skip into a failure, so that a level never goes missing
unseen; CORRAL_REQUIRE_CLIENTS=1 does the same for the tests marked ``clients``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import pytest


@dataclass
class Level:
    """What became of one level's tests in this run."""

    title: str
    ran: int = 0
    deselected: int = 0
    seconds: float = 0.0
    skipped: Counter[str] = field(default_factory=Counter)

    def took(self) -> str:
        return f"{self.seconds:7.1f} s  {self.title}: {self.ran} run"

    def missing(self) -> str | None:
        """One line on what was not run and why; None when all of it was."""
        if self.skipped:
            count = sum(self.skipped.values())
            share = "not run" if not self.ran else f"{count} of {count + self.ran} tests not run"
            return f"{self.title}: {share}: {'; '.join(sorted(self.skipped))}"
        if self.deselected and not self.ran:
            return f"{self.title}: not run: left out by the selection of this run ({self.deselected} tests)"
        return None if self.ran else f"{self.title}: not run: it has no test yet"


_REQUIRED = {
    "clients": "CORRAL_REQUIRE_CLIENTS",
    "cluster": "CORRAL_REQUIRE_CLUSTER",
    "node": "CORRAL_REQUIRE_CLUSTER",
}
"""Which setting says that a level must not be left out."""
_LEVELS = pytest.StashKey[dict[str, Level]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_LEVELS] = {
        "values": Level("level 1, values"),
        "process": Level("level 2, processes"),
        "clients": Level("level 2, clients that are built or have an environment of their own"),
        "cluster": Level("level 3, API server"),
        "node": Level("level 4, a real node with image and chart"),
    }


def _name(item: pytest.Item) -> str:
    return next(
        (marker for marker in ("node", "cluster", "clients", "process") if item.get_closest_marker(marker)), "values"
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
        return  # somebody named some tests: they know what they left out
    levels = config.stash[_LEVELS].values()
    _section(terminalreporter, "time by level", [level.took() for level in levels if level.ran])
    _section(terminalreporter, "levels not run", [line for level in levels if (line := level.missing())])


def _section(reporter: pytest.TerminalReporter, title: str, lines: Sequence[str]) -> None:
    if lines:
        reporter.section(title)
    for line in lines:
        reporter.write_line(line)
