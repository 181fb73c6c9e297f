"""Metrics exposition by prometheus_client, over counters that the hot paths keep as plain numbers.

- A process counts in its own fields and dicts and builds metric families from them at each scrape. prometheus_client's
  own counters take a lock: measured 0.4 µs for a counter and 0.8 µs for a histogram, where plain numbers take 0.09 µs
  and ``Histogram.observe`` 0.14 µs.
- A number that another thread writes during a scrape is exposed as it is at that moment.
- The source of a family bounds its labels: a series exists as long as its source yields it.
- Import this module at the first scrape where a cold start counts: prometheus_client takes about 40 ms to import.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

from corral_core.base.metrics import Histogram

Labels = Mapping[str, str]

MetricSource = Callable[[], Iterable[Metric]]
"""Returns metric families with their current values."""


class SourceCollector(Collector):
    """Collector of one process, over the sources of its families."""

    def __init__(self, sources: Iterable[MetricSource]) -> None:
        self._sources = tuple(sources)

    def collect(self) -> Iterator[Metric]:
        for source in self._sources:
            yield from source()


def expose(sources: Iterable[MetricSource], accept: str = "") -> tuple[bytes, str]:
    """Encode the families in the format that the ``Accept`` header asks for; return the body and its content type."""
    encode, content_type = choose_encoder(accept)
    return encode(SourceCollector(sources)), content_type


def counter(name: str, documentation: str, series: Iterable[tuple[Labels, float]]) -> Metric:
    """Build a counter family; ``name`` ends in ``_total``."""
    return _family(name.removesuffix("_total"), documentation, "counter", _samples(name, series))


def gauge(name: str, documentation: str, series: Iterable[tuple[Labels, float]]) -> Metric:
    return _family(name, documentation, "gauge", _samples(name, series))


def histogram(name: str, documentation: str, series: Iterable[tuple[Labels, Histogram]]) -> Metric:
    samples = (sample for labels, values in series for sample in _histogram_samples(name, labels, values))
    return _family(name, documentation, "histogram", samples)


def _family(name: str, documentation: str, kind: str, samples: Iterable[Sample]) -> Metric:
    family = Metric(name, documentation, kind)
    family.samples.extend(samples)
    return family


def _samples(name: str, series: Iterable[tuple[Labels, float]]) -> Iterator[Sample]:
    return (Sample(name, dict(labels), value) for labels, value in series)


def _histogram_samples(name: str, labels: Labels, values: Histogram) -> Iterator[Sample]:
    counts, total = list(values.counts), values.total
    cumulative = 0
    for bound, count in zip(_bucket_labels(values.bounds), counts, strict=True):
        cumulative += count
        yield Sample(f"{name}_bucket", {**labels, "le": bound}, cumulative)
    yield Sample(f"{name}_sum", dict(labels), total)
    yield Sample(f"{name}_count", dict(labels), cumulative)


@lru_cache(maxsize=64)
def _bucket_labels(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return tuple(str(floatToGoString(bound)) for bound in (*bounds, math.inf))  # type: ignore[no-untyped-call]
