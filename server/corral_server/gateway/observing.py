"""Begins the record of each request, and says who hears of it when it has ended.

Probes of kubelets and load balancers are not requests, and are not recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

from corral_core.metrics import Family, counter
from corral_server.gateway.directory import Directory, Entry
from corral_server.gateway.front.exchange import Exchange
from corral_server.gateway.messages import Request
from corral_server.gateway.metrics import NO_MODEL, Meters
from corral_server.gateway.queue import Queue
from corral_server.gateway.record import Record, Sink

OTHER = "other"
"""The label of paths that are not served."""
_PROBES = frozenset(("/", "/healthz", "/readyz"))


class Observing:
    """``sinks`` get every record that has ended; without any of them nobody looks at a request one by one.

    ``turned_away`` counts by status the clients whose connection ended with an error before there was a request.
    """

    def __init__(self, directory: Directory, *sinks: Sink) -> None:
        self.meters = Meters(directory)
        self.turned_away: Counter[int] = Counter()
        self._sink = _all(sinks) if len(sinks) > 1 else next(iter(sinks), None)

    def begin(self, request: Request, paths: Collection[str]) -> None:
        """A request came whose Model is not known yet. ``paths`` are those that are served."""
        exchange = request.exchange
        if exchange is None or request.path in _PROBES:
            return
        api = request.path if request.path in paths else OTHER
        record = Record(self.meters.nobody, model=NO_MODEL, api=api, headers=exchange.headers, sink=self._sink)
        record.method = request.method
        exchange.record = record

    def begin_for(self, exchange: Exchange, api: str, entry: Entry) -> None:
        """The same for a request that was sent to a runner already."""
        key = entry.key
        record = Record(self.meters.of(key), model=key, api=api, headers=exchange.headers, sink=self._sink)
        record.sent = True
        exchange.record = record

    def about(self, exchange: Exchange | None, entry: Entry) -> None:
        """The request's Model is known now."""
        if exchange is not None and exchange.record is not None:
            exchange.record.about(entry.key, self.meters.of(entry.key))

    def families(self, queue: Queue) -> Iterator[Family]:
        yield from self.meters.families(queue)
        yield counter(
            "corral_gateway_turned_away_total",
            "Connections that ended with an error before there was a request: too many, too slow, not HTTP.",
            [({"code": str(code)}, count) for code, count in self.turned_away.items()],
        )


def _all(sinks: tuple[Sink, ...]) -> Sink:
    def tell(record: Record) -> None:
        for sink in sinks:
            sink(record)

    return tell
