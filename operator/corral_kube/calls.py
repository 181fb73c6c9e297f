"""Metrics of calls to the API server by verb, resource and status code, like client-go's ``rest_client_*`` metrics.

- Object names are not labels, so the number of series is bounded by the resources that Corral uses.
- A watch counts when it starts and has no duration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from corral_core.base.exposition import Metric, counter, gauge, histogram
from corral_core.base.metrics import LATENCY_BUCKETS, Histogram
from corral_kube.unreadable import UnreadableObjects

UNREACHABLE = "error"
"""Code of a call without a response."""

_VERBS: Mapping[str, str] = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class APICallMetrics:
    """Counters of one process; used on one event loop. ``unreadable`` are objects that the process skips."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.seconds = {verb: Histogram(LATENCY_BUCKETS) for verb in ("get", "list", *_VERBS.values())}
        self.unreadable = UnreadableObjects()

    def record(self, method: str, path: str, *, watch: bool, code: str, seconds: float) -> None:
        verb, resource = verb_and_resource(method, path, watch=watch)
        self.counts[verb, resource, code] += 1
        if not watch:
            self.seconds[verb].observe(seconds)

    def families(self, prefix: str) -> Iterator[Metric]:
        """Yield the metric families; ``prefix`` is the process's, such as ``corral_operator``."""
        yield counter(
            f"{prefix}_kube_api_requests_total",
            "Kubernetes API calls; code error: no response.",
            [
                ({"verb": verb, "resource": resource, "code": code}, count)
                for (verb, resource, code), count in list(self.counts.items())
            ],
        )
        yield histogram(
            f"{prefix}_kube_api_request_duration_seconds",
            "Duration of Kubernetes API calls, watches excluded.",
            [({"verb": verb}, one) for verb, one in self.seconds.items()],
        )
        objects = {(verb_and_resource("GET", path, watch=False)[1], key) for path, key in self.unreadable.listed()}
        counts = Counter(resource for resource, _ in objects)
        yield gauge(
            f"{prefix}_unreadable_objects",
            "Objects of the API server that are skipped, in whole or in part, since the process cannot read them.",
            [({"resource": resource}, count) for resource, count in counts.items()],
        )


def verb_and_resource(method: str, path: str, *, watch: bool) -> tuple[str, str]:
    """Return verb and resource as in RBAC rules: ``("patch", "models/status")``."""
    parts = path.strip("/").split("/")
    rest = parts[3:] if parts[0] == "apis" else parts[2:] if parts[0] == "api" else parts
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    resource = "/".join([*rest[:1], *rest[2:3]])
    read = "watch" if watch else "get" if len(rest) > 1 or parts[0] not in ("api", "apis") else "list"
    return _VERBS.get(method, read), resource
