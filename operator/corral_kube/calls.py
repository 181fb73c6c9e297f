"""Counts the calls to the API server, by verb, resource and code, as client-go's metrics do.

Resources are those that Corral asks for, names of objects are left out: the labels are few. A watch counts when it
begins, and its length is not a duration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from corral_core.metrics import LATENCY, Family, Histogram, counter, histogram

UNREACHABLE = "error"
"""The code of a call that got no answer."""

_VERBS: Mapping[str, str] = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Calls:
    """Used on one event loop."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.seconds = {verb: Histogram(LATENCY) for verb in ("get", "list", *_VERBS.values())}

    def note(self, method: str, path: str, *, watch: bool, code: str, seconds: float) -> None:
        verb, resource = call_of(method, path, watch=watch)
        self.counts[verb, resource, code] += 1
        if not watch:
            self.seconds[verb].observe(seconds)

    def families(self, prefix: str) -> Iterator[Family]:
        """``prefix`` is the process's, like ``corral_operator``."""
        yield counter(
            f"{prefix}_api_requests_total",
            "Calls to the API server; code error: there was no answer.",
            [
                ({"verb": verb, "resource": resource, "code": code}, count)
                for (verb, resource, code), count in self.counts.items()
            ],
        )
        yield histogram(
            f"{prefix}_api_request_seconds",
            "How long calls to the API server took, watches left out.",
            [({"verb": verb}, one) for verb, one in self.seconds.items()],
        )


def call_of(method: str, path: str, *, watch: bool) -> tuple[str, str]:
    """Verb and resource, as RBAC names them: ``("patch", "models/status")``."""
    parts = path.strip("/").split("/")
    rest = parts[3:] if parts[0] == "apis" else parts[2:] if parts[0] == "api" else parts
    if rest[:1] == ["namespaces"] and len(rest) > 2:
        rest = rest[2:]
    resource = "/".join([*rest[:1], *rest[2:3]])
    read = "watch" if watch else "get" if len(rest) > 1 or parts[0] not in ("api", "apis") else "list"
    return _VERBS.get(method, read), resource
