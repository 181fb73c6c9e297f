"""Evaluation of queries and alerts over synthetic series or scraped expositions by the engine of Prometheus.

The engine runs in promcheck (see ``exposition``). Times are in seconds, and the series begin at 0.
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
"""Seconds between two scrapes."""
INTERVAL = 60.0
"""Seconds between two evaluations of the alerts."""
END = 7200.0
"""End of the series in a test, and time of the evaluation of alerts."""


@dataclass(frozen=True)
class Series:
    """A series: ``labels`` contain its name as ``__name__``; ``points`` are times and values."""

    labels: Mapping[str, str]
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class RangeQuery:
    """A query that is evaluated every ``step`` seconds from ``start`` to ``end``."""

    query: str
    start: float
    end: float
    step: float = INTERVAL


def gauge(name: str, value: float, **labels: str) -> Series:
    """Return a constant gauge."""
    return _series(name, lambda _: value, labels)


def counter(name: str, rate: float, **labels: str) -> Series:
    """Return a counter that grows by ``rate`` per second."""
    return _series(name, partial(mul, rate), labels)


def ending_at(series: Series, at: float) -> Series:
    """Return the series with its last scrape at this time."""
    return Series(series.labels, [point for point in series.points if point[0] <= at])


def histogram(name: str, rate: float, value: float, *, bounds: Sequence[float], **labels: str) -> list[Series]:
    """Return a histogram with ``rate`` observations of ``value`` per second."""
    rates = {**{f"{bound:g}": rate * (value <= bound) for bound in bounds}, "+Inf": rate}
    return [counter(f"{name}_bucket", each, le=bound, **labels) for bound, each in rates.items()]


def scraped_series(texts: Sequence[str], start: float = 0.0, **labels: str) -> list[Series]:
    """Return the series of consecutive scrapes of a process, with the labels that Prometheus adds."""
    found: dict[tuple[tuple[str, str], ...], list[tuple[float, float]]] = {}
    for at, text in zip(itertools.count(start, SCRAPE), texts, strict=False):
        for family in parse(text):
            for sample in family.samples:
                named = tuple(sorted({**labels, **sample.labels, "__name__": sample.name}.items()))
                found.setdefault(named, []).append((at, float(sample.value)))
    return [Series(dict(named), points) for named, points in found.items()]


def evaluate(series: Iterable[Series], queries: Sequence[RangeQuery]) -> list[list[Series]]:
    """Return the result of each query."""
    request = {
        "series": [{"labels": dict(each.labels), "points": list(_points(each))} for each in series],
        "queries": [vars(query) for query in queries],
    }
    done = subprocess.run(
        [promcheck(), "evaluate"], input=json.dumps(request), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    return [
        [
            Series(one["labels"], [(point["at"], float(point["value"])) for point in one["points"] or ()])
            for one in result
        ]
        for result in results
    ]


def firing_alerts(rule: Mapping[str, object], series: Iterable[Series], at: float = END) -> list[Mapping[str, str]]:
    """Return the labels of the alerts that fire at this time: the condition has held during the rule's ``for``."""
    held = float(str(rule["for"]).removesuffix("m")) * 60
    [found] = evaluate(series, [RangeQuery(str(rule["expr"]), at - held, at)])
    evaluations = int(held / INTERVAL) + 1
    return [each.labels for each in found if len(each.points) == evaluations]


def _series(name: str, value: Callable[[float], float], labels: Mapping[str, str]) -> Series:
    moments = [number * SCRAPE for number in range(int(END / SCRAPE) + 1)]
    return Series({"__name__": name, **labels}, [(at, value(at)) for at in moments])


def _points(series: Series) -> Iterator[Mapping[str, object]]:
    for at, value in series.points:
        yield {"at": at, "value": repr(float(value)).replace("inf", "Inf").replace("nan", "NaN")}
