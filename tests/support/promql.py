"""What Prometheus makes of series: queries and alerts over values that a test thinks of, or that a process told.

Evaluated by Prometheus' own engine (promcheck; see ``exposition``). Times are seconds, and the series begin at 0.
"""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import mul

from prometheus_client.parser import text_string_to_metric_families as parse

from tests.support.exposition import promcheck

SCRAPE = 30.0
"""Seconds from one scrape to the next."""
INTERVAL = 60.0
"""Seconds from one look at the alerts to the next."""
HOURS = 7200.0
"""The end of a test's series, and when its alerts are looked at."""


@dataclass(frozen=True)
class Line:
    """One series: ``labels`` have its name as ``__name__``; ``points`` are moments and values."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Question:
    """A query, asked every ``step`` seconds from ``start`` to ``end``."""

    query: str
    start: float
    end: float
    step: float = INTERVAL


def level(name: str, value: float, **labels: str) -> Line:
    """A gauge that stays as it is."""
    return _line(name, lambda _: value, labels)


def rising(name: str, rate: float, **labels: str) -> Line:
    """A counter that grows by ``rate`` a second."""
    return _line(name, partial(mul, rate), labels)


def ended(line: Line, at: float) -> Line:
    """The same, whose process was scraped for the last time at this moment."""
    return Line(line.labels, [point for point in line.points if point[0] <= at])


def observed(name: str, rate: float, value: float, *, bounds: Sequence[float], **labels: str) -> list[Line]:
    """A histogram that gets ``rate`` observations of ``value`` a second."""
    rates = {**{f"{bound:g}": rate * (value <= bound) for bound in bounds}, "+Inf": rate}
    return [rising(f"{name}_bucket", each, le=bound, **labels) for bound, each in rates.items()]


def expositions(texts: Sequence[str], start: float = 0.0, **labels: str) -> list[Line]:
    """The series of what a process told at one scrape after the other, with the labels that Prometheus adds."""
    found: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    for at, text in zip(itertools.count(start, SCRAPE), texts, strict=False):
        for family in parse(text):
            for sample in family.samples:
                named = tuple(sorted({**labels, **sample.labels, "__name__": sample.name}.items()))
                found.setdefault(named, []).append((at, float(sample.value)))
    return [Line(dict(named), points) for named, points in found.items()]


def evaluate(lines: Iterable[Line], questions: Sequence[Question]) -> list[list[Line]]:
    """The answer to each question."""
    asked = {
        "series": [{"labels": dict(line.labels), "points": list(_points(line))} for line in lines],
        "questions": [vars(question) for question in questions],
    }
    done = subprocess.run(
        [promcheck(), "evaluate"], input=json.dumps(asked), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    return [
        [Line(one["labels"], [(point["at"], float(point["value"])) for point in one["points"] or ()]) for one in answer]
        for answer in answers
    ]


def firing(rule: Mapping[str, object], lines: Iterable[Line], at: float = HOURS) -> list[Mapping[str, str]]:
    """The labels of the alerts that fire at this moment: what the rule asks has held at every look of its ``for``."""
    held = float(str(rule["for"]).removesuffix("m")) * 60
    [found] = evaluate(lines, [Question(str(rule["expr"]), at - held, at)])
    looks = int(held / INTERVAL) + 1
    return [line.labels for line in found if len(line.points) == looks]


def _line(name: str, value: Callable[[float], float], labels: Mapping[str, str]) -> Line:
    moments = [number * SCRAPE for number in range(int(HOURS / SCRAPE) + 1)]
    return Line({"__name__": name, **labels}, [(at, value(at)) for at in moments])


def _points(line: Line) -> Iterator[Mapping[str, object]]:
    for at, value in line.points:
        yield {"at": at, "value": repr(float(value)).replace("inf", "Inf").replace("nan", "NaN")}
