"""``corral pull``: a source into this user's store, or the pull of a Model that ``corral serve`` serves.

Ctrl-C ends the pull at once; what has arrived is kept, and the next pull continues.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from functools import partial

from corral_core.base.errors import CorralError
from corral_core.sources.snapshot import Snapshot
from corral_core.sources.uri import shown_uri
from corral_server.local.pulls.config import pull_config
from corral_server.local.pulls.progress_line import progress_line
from corral_server.local.pulls.progress_text import size_text
from corral_server.local.pulls.sources import LocalSources
from corral_server.pull.errors import PullCancelled

STOP_TIMEOUT = 3.0
"""Seconds in which a pull that ends writes down what has arrived."""


def pull_source(uri: str, environ: Mapping[str, str]) -> int:
    """Pull a source into the user's store and print what was pulled, also soon after its content was wrong.

    Raises CorralError and KeyboardInterrupt.
    """
    sources, cancel = LocalSources(pull_config(environ)), threading.Event()
    with progress_line() as line:
        snapshot = _in_thread(partial(sources.puller(cancel).pull, uri, progress=line.show, force=True), cancel)
    print(f"{shown_uri(uri)}  {size_text(snapshot.size)}  {snapshot.pin}")
    return 0


def _in_thread(pull: partial[Snapshot], cancel: threading.Event) -> Snapshot:
    """Call in a thread, so that Ctrl-C is seen at once. Raises what ``pull`` raises."""
    results: list[Snapshot] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(pull())
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="pull", daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(1.0)
    except KeyboardInterrupt:
        cancel.set()
        thread.join(STOP_TIMEOUT)
        if not any(isinstance(error, CorralError) and not isinstance(error, PullCancelled) for error in errors):
            print("the pull has ended; the next one continues where it stopped", file=sys.stderr)
        raise
    if errors:
        raise errors[0]
    return results[0]
