"""``corral cache``: what this user's store contains, and its collection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from corral_core.base.errors import CorralError
from corral_core.sources.uri import shown_uri
from corral_server.local.cli.tables import print_table
from corral_server.local.pulls.config import pull_config
from corral_server.local.pulls.progress_text import duration_text, size_text
from corral_server.pull.collect import CollectPolicy, collect, remove_source
from corral_server.pull.failures import FailedDownloads
from corral_server.pull.store import WeightsStore
from corral_server.pull.stored import stored_partials, stored_sources, uploaded_ids


class NotStored(CorralError):
    """A source that the store does not have, or that a process uses."""


def list_cache(environ: Mapping[str, str]) -> int:
    """Print the sources of the store, the least recently used one last, and the downloads that are not complete."""
    store = _store(environ)
    now = datetime.now(UTC).timestamp()
    rows = [("SOURCE", "SIZE", "USED", "STATE")]
    for source in reversed(stored_sources(store)):
        used = f"{duration_text(max(0.0, now - source.last_used))} ago"
        size = size_text(source.snapshot.size)
        state = "complete" if source.complete else "damaged"
        rows.append((shown_uri(source.snapshot.uri), size, used, state))
    for partial in stored_partials(store):
        share = f"{100 * partial.completed // partial.total} %" if partial.total else size_text(partial.completed)
        used = f"{duration_text(max(0.0, now - partial.modified))} ago"
        rows.append((f"({partial.key[:19]})", size_text(partial.size), used, f"partial, {share}"))
    print_table(rows)
    print(f"{store.root}: {size_text(store.used())} used, {size_text(store.free())} free")
    return 0


def prune_cache(environ: Mapping[str, str], *, age: float, size_limit: int | None) -> int:
    """Remove what is older than ``age`` seconds and belongs to no source, and sources beyond ``size_limit`` bytes.

    Uploaded weights stay: they cannot be pulled again.
    """
    store = _store(environ)
    collected = collect(store, CollectPolicy(age=age, size_limit=size_limit), in_use=uploaded_ids(store))
    print(
        f"removed {len(collected.snapshots)} sources, {len(collected.blobs)} files and {len(collected.partials)} "
        f"unfinished downloads; {size_text(collected.size)} are free again"
    )
    return 0


def remove_from_cache(environ: Mapping[str, str], uris: Sequence[str]) -> int:
    """Remove these sources, their failed downloads, and the files that no other source has. Raises NotStored."""
    store = _store(environ)
    for uri in uris:
        ids = [source.snapshot.id for source in stored_sources(store) if source.snapshot.uri == uri]
        if not FailedDownloads(store.root).forget_source(uri) and not ids:
            raise NotStored(f"{shown_uri(uri)} is not in {store.root}; `corral cache ls` lists what is")
        for id in ids:
            if not remove_source(store, id):
                raise NotStored(
                    f"{shown_uri(uri)} is in use by a process; end `corral serve` or remove the Model first"
                )
    return prune_cache(environ, age=0.0, size_limit=None)


def _store(environ: Mapping[str, str]) -> WeightsStore:
    config = pull_config(environ)
    return WeightsStore(config.store, also_read=config.also_read)
