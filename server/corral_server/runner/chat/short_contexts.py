"""Requests that ask for a longer context (``num_ctx``) than a slot has: counted, and logged once for each value."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from corral_server.runner.chat.loaded_model import LoadedModel

log = logging.getLogger("corral.runner.context")

_LOGGED_VALUES = 32
"""Values of ``num_ctx`` that are logged; clients choose them."""


@dataclass
class ShortContexts:
    """Record of one runner. ``requests`` is the number of requests that were served with less than they asked for."""

    requests: int = 0
    _logged: set[int] = field(default_factory=set)

    def record(self, loaded: LoadedModel, num_ctx: int, *, model: str) -> int:
        """Return the context length that a request for ``num_ctx`` tokens is served with, 0 if it asks for no more."""
        length = loaded.engine.context_length
        if num_ctx <= length:
            return 0
        self.requests += 1
        if num_ctx not in self._logged and len(self._logged) < _LOGGED_VALUES:
            self._logged.add(num_ctx)
            log.warning("model %s: num_ctx %d of a request exceeds the context length %d", model, num_ctx, length)
        return length
