"""Order of the pending requests of one model: first in, first out in each namespace, fair between namespaces.

The namespace of a request is the one that its API key is for, or else the namespace of the model.

- While requests of one namespace are pending, the order is that of arrival.
- With several, the next request is of the namespace that holds the fewest slots of the model by its weight, and of
  those the one that was served least. So a flood of one namespace delays the first request of another by one completed
  request, and in the long run each gets slots by its weight.
- No namespace starves: one that waits is served least after a bounded number of other requests.
- A namespace that was absent gets no credit for it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar

NO_WEIGHTS: Mapping[str, float] = {}
"""Every namespace has the weight 1."""


class Numbered(Protocol):
    """A request with its number in order of arrival."""

    number: int
    namespace: str


R = TypeVar("R", bound=Numbered)


class FairOrder(Generic[R]):
    """``weights`` are those of namespaces that do not have the weight 1. ``size`` is the number of requests."""

    __slots__ = ("_lines", "_served", "_weights", "size")

    def __init__(self, weights: Mapping[str, float] = NO_WEIGHTS) -> None:
        self._weights = weights
        self._lines: dict[str, OrderedDict[R, None]] = {}
        self._served: dict[str, float] = {}
        self.size = 0

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[R]:
        """Iterate over all requests in order of arrival."""
        return iter(sorted((one for line in self._lines.values() for one in line), key=lambda one: one.number))

    def append(self, request: R) -> None:
        """Add a request that arrived after all others."""
        self._line(request.namespace)[request] = None
        self.size += 1

    def reinsert(self, request: R) -> None:
        """Add a request by its number: behind those of its namespace that arrived earlier, ahead of all others."""
        line = self._line(request.namespace)
        earlier = []
        for other in line:
            if other.number > request.number:
                break
            earlier.append(other)
        line[request] = None
        for one in (request, *reversed(earlier)):
            line.move_to_end(one, last=False)
        self.size += 1

    def remove(self, request: R) -> None:
        line = self._lines[request.namespace]
        del line[request]
        self.size -= 1
        if not line:
            self._drop(request.namespace)

    def pop(self, running: Callable[[], Iterable[R]]) -> R:
        """Remove and return the next request; ``running()`` are the requests that hold slots of the model."""
        if len(self._lines) == 1:
            namespace = next(iter(self._lines))
        else:
            namespace = self._next_namespace(running())
            self._served[namespace] += 1 / self._weights.get(namespace, 1.0)
        line = self._lines[namespace]
        request, _ = line.popitem(last=False)
        self.size -= 1
        if not line:
            self._drop(namespace)
        return request

    def oldest(self) -> R | None:
        """Return the request that arrived first."""
        heads = [next(iter(line)) for line in self._lines.values()]
        return min(heads, key=lambda head: head.number) if heads else None

    def clear(self) -> None:
        self._lines.clear()
        self._served.clear()
        self.size = 0

    def _line(self, namespace: str) -> OrderedDict[R, None]:
        line = self._lines.get(namespace)
        if line is None:
            self._served[namespace] = min(self._served.values(), default=0.0)
            line = self._lines[namespace] = OrderedDict()
        return line

    def _drop(self, namespace: str) -> None:
        del self._lines[namespace], self._served[namespace]

    def _next_namespace(self, running: Iterable[R]) -> str:
        held = dict.fromkeys(self._lines, 0)
        for request in running:
            if request.namespace in held:
                held[request.namespace] += 1
        best: str | None = None
        least = (0.0, 0.0, 0)
        for namespace, line in self._lines.items():
            share = held[namespace] / self._weights.get(namespace, 1.0)
            cost = share, self._served[namespace], next(iter(line)).number
            if best is None or cost < least:
                best, least = namespace, cost
        assert best is not None
        return best
