"""Usage by API key for Prometheus. Labels are the names of existing keys; the series of a removed key end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping

from corral_core.base.exposition import Metric, counter, gauge
from corral_server.gateway.auth.key_file import ApiKey


class KeyMetrics:
    """``keys`` returns the keys in use."""

    def __init__(self, keys: Callable[[], Collection[ApiKey]]) -> None:
        self._keys = keys
        self._requests: Counter[tuple[str, int]] = Counter()
        self._tokens: Counter[tuple[str, str]] = Counter()

    def record(self, key: str, status: int, prompt: int, *, generated: int) -> None:
        """Count a request that has ended, and its tokens."""
        self._requests[key, status] += 1
        if prompt or generated:
            self._tokens[key, "prompt"] += prompt
            self._tokens[key, "generated"] += generated

    def retain(self, names: Collection[str]) -> None:
        """Drop the counters of all other keys."""
        for requests in [each for each in self._requests if each[0] not in names]:
            del self._requests[requests]
        for tokens in [each for each in self._tokens if each[0] not in names]:
            del self._tokens[tokens]

    def families(self, rejected: Mapping[str, int]) -> Iterator[Metric]:
        """Yield the families; ``rejected`` counts by reason the requests that were not authenticated."""
        keys = list(self._keys())
        names = {key.name for key in keys}
        yield counter(
            "corral_gateway_api_key_requests_total",
            "Completed requests by API key and status code; 429: over a limit of the key.",
            [
                ({"api_key": name, "code": str(code)}, count)
                for (name, code), count in list(self._requests.items())
                if name in names
            ],
        )
        yield counter(
            "corral_gateway_api_key_tokens_total",
            "Tokens by API key and kind: prompt or generated.",
            [
                ({"api_key": key.name, "kind": kind}, self._tokens[key.name, kind])
                for key in keys
                for kind in ("prompt", "generated")
            ],
        )
        yield gauge(
            "corral_gateway_api_key_expiry_timestamp_seconds",
            "Time at which the API key expires, in Unix seconds; only for keys that expire.",
            [({"api_key": key.name}, key.expires) for key in keys if key.expires is not None],
        )
        yield counter(
            "corral_gateway_unauthorized_requests_total",
            "Requests answered 401 by reason: missing, invalid or expired API key.",
            [({"reason": reason}, count) for reason, count in rejected.items()],
        )
