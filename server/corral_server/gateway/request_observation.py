"""Observation of requests: starts the metrics of each request and passes them to the observers when it ends.

Probes of kubelets and load balancers are not observed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from corral_core.base.exposition import Metric, counter
from corral_server.gateway.directory.directory import Directory, ModelEntry
from corral_server.gateway.messages import Request
from corral_server.gateway.observability.metrics import NO_MODEL, GatewayMetrics
from corral_server.gateway.observability.request_metrics import RequestMetrics, RequestObserver
from corral_server.gateway.queueing.queue import RequestQueue

OTHER_PATH = "other"
"""Label of paths that are not served."""
_PROBES = frozenset(("/", "/healthz", "/readyz"))


class RequestObservation:
    """``rejected_connections`` counts by status the connections closed before a request was parsed."""

    def __init__(self, directory: Directory, *observers: RequestObserver) -> None:
        self.metrics = GatewayMetrics(directory)
        self.rejected_connections: Counter[int] = Counter()
        self._observer = _notify_all(observers) if len(observers) > 1 else next(iter(observers), None)

    def start(self, request: Request, paths: Collection[str]) -> None:
        """Start the metrics of a request whose Model is not known yet. ``paths`` are the served ones."""
        if request.path in _PROBES:
            return
        api = request.path if request.path in paths else OTHER_PATH
        model_metrics, headers = self.metrics.unattributed, request.headers
        metrics = RequestMetrics(model_metrics, model=NO_MODEL, api=api, headers=headers, observer=self._observer)
        metrics.method = request.method
        request.metrics = request.exchange.observer = metrics

    def set_model(self, request: Request, entry: ModelEntry) -> None:
        """Attribute the request to a Model."""
        if request.metrics is not None:
            request.metrics.set_model(entry.key, self.metrics.for_model(entry.key))
            request.metrics.model_name = request.model_name
            request.metrics.body_bytes = len(request.body)

    def families(self, queue: RequestQueue) -> Iterator[Metric]:
        yield from self.metrics.families(queue)
        yield counter(
            "corral_gateway_rejected_connections_total",
            "Connections closed with an error response before a request was parsed: too many, too slow, not HTTP.",
            [({"code": str(code)}, count) for code, count in list(self.rejected_connections.items())],
        )


def _notify_all(observers: tuple[RequestObserver, ...]) -> RequestObserver:
    def notify(metrics: RequestMetrics) -> None:
        for observer in observers:
            observer(metrics)

    return notify
