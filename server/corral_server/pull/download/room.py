"""Check that a store has room for a file, before the first byte is pulled."""

from __future__ import annotations

import contextlib
import time
from typing import Final

from corral_core.base.quantities import format_bytes
from corral_server.pull.download.partial import STATE
from corral_server.pull.download.state import load_state
from corral_server.pull.errors import StoreFull
from corral_server.pull.store import WeightsStore

_ACTIVE: Final = 60.0
"""Seconds after which a download that has not saved its state does not reserve room any more."""


def check_room(store: WeightsStore, needed: int, *, name: str, key: str = "") -> None:
    """Raise StoreFull if ``needed`` bytes do not fit into the store beside the downloads under way.

    ``key`` is the file's own download, which reserves nothing against itself.
    """
    free, reserved = store.free(), _reserved(store, key)
    if needed <= free - reserved:
        return
    others = f" ({format_bytes(reserved)} of it reserved for other downloads)" if reserved else ""
    limit = "" if store.size_limit is None else f" (size limit {format_bytes(store.size_limit)})"
    raise StoreFull(
        f"{name} needs {format_bytes(needed)}; {format_bytes(free)} are free in {store.root}{limit}{others}. "
        "Delete what is not used (corral cache prune), or enlarge the volume (spec.cache.size)"
    )


def _reserved(store: WeightsStore, key: str) -> int:
    """Return the bytes that the other downloads under way have yet to write."""
    total = 0
    with contextlib.suppress(OSError):
        for path in store.partial.glob(f"*{STATE}"):
            with contextlib.suppress(OSError):
                if path.name != f"{key}{STATE}" and abs(time.time() - path.stat().st_mtime) < _ACTIVE:
                    state = load_state(path)
                    if state is not None and state.size is not None:
                        total += state.size - state.done().size
    return total
