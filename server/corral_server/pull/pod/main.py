"""Entry point of ``python -m corral_server.pull.pod.main``: pulls the pinned sources of a Model into a store.

- While it pulls, it serves its progress (``progress_server``).
- It ends with the ids of the snapshots as its termination message, in the order of the task, or with the reason of the
  failure (``corral_core.contracts.pull_status``). The kubelet restarts it, and it continues where it stopped.
- It may be killed at any moment: what is on disk stays for the next attempt.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from corral_core.base import json_log
from corral_core.base.errors import CorralError
from corral_core.contracts.pull_status import PullFailure, PullStatus, encode_failure, encode_pulled
from corral_core.sources.snapshot import snapshot_id
from corral_core.sources.uri import shown_uri
from corral_server.pull.collect import MINIMUM_AGE, CollectPolicy, collect
from corral_server.pull.errors import FileChanged, PullError, StoreFull
from corral_server.pull.pod.progress_server import CurrentStatus, ProgressServer
from corral_server.pull.pod.puller import pod_puller
from corral_server.pull.pod.task import PullTask, exit_with, log_event, pull_task, write_termination_message
from corral_server.pull.progress import PullProgress
from corral_server.pull.puller import Puller
from corral_server.pull.remote_files import RemoteFile
from corral_server.pull.store import WeightsStore


def main() -> None:
    json_log.configure_logging()
    try:
        task = pull_task(os.environ)
        status = CurrentStatus(PullStatus(0, task.total or None))
        server = ProgressServer((task.host, task.port), status, identity=task.identity)
        try:
            puller = pod_puller(os.environ, store=task.store)
            clean(task, pulling=missing_files(task, puller))
            snapshots = pull_all(task, puller, status)
        finally:
            server.close()
    except (CorralError, OSError) as error:
        exit_with(encode_failure(_reason(error), str(error) or type(error).__name__))
    else:
        write_termination_message(encode_pulled(snapshots))


def missing_files(task: PullTask, puller: Puller) -> list[RemoteFile]:
    """Return the files that the store lacks, in whole or in part. Raises SourceError and PullError."""
    files: list[RemoteFile] = []
    for uri, pin in task.sources:
        with suppress(FileChanged):  # the pull says what to do
            files += puller.missing_files(uri, pin)
    return files


def clean(task: PullTask, *, pulling: Sequence[RemoteFile]) -> None:
    """Remove what the store does not need any more: all other sources on the claim of one Model, and old partial files.

    What an earlier attempt has of the files ``pulling`` stays, however long ago that was. An error of the collection
    does not end the pull, which reports whether the store has room.
    """
    store = WeightsStore(task.store)
    needed = [snapshot_id(uri, pin) for uri, pin in task.sources]
    policy = CollectPolicy() if task.keep is None else CollectPolicy(age=MINIMUM_AGE, size_limit=0)
    try:
        removed = collect(store, policy, in_use=[*needed, *(task.keep or ())], pulling=pulling)
    except PullError as error:
        log_event("collect_failed", level=logging.WARNING, reason=str(error))
    else:
        log_event("collected", snapshots=len(removed.snapshots), blobs=len(removed.blobs), bytes=removed.size)


def pull_all(task: PullTask, puller: Puller, status: CurrentStatus) -> list[str]:
    """Pull every source and return the ids of their snapshots. Raises SourceError, PullError and OSError.

    The resolver has read the headers at these pins, so a puller that was killed continues without reading them again.
    """
    snapshots: list[str] = []
    done = 0
    for uri, pin in task.sources:
        log_event("pull_started", source=shown_uri(uri), pin=pin)
        snapshot = puller.pull(uri, pin=pin, progress=_Listener(status, task, done=done), found=None)
        snapshots.append(snapshot.id)
        done += snapshot.size
        status.set(replace(status.get(), completed=done))
        log_event("pull_finished", source=shown_uri(uri), pin=pin, snapshot=snapshot.id, size=snapshot.size)
    return snapshots


class _Listener:
    """Progress of one source as that of the whole task; ``done`` are the bytes of the sources before."""

    def __init__(self, status: CurrentStatus, task: PullTask, *, done: int) -> None:
        self._status = status
        self._task = task
        self._done = done

    def __call__(self, progress: PullProgress) -> None:
        only = len(self._task.sources) == 1
        total = self._task.total or (progress.total if only else None)
        completed = self._done + max(progress.completed, 0)
        self._status.set(
            PullStatus(
                completed if total is None else min(completed, total),
                total,
                float(max(progress.rate, 0)),
                str(progress.stage),
            )
        )


def _reason(error: Exception) -> PullFailure:
    if isinstance(error, StoreFull):
        return PullFailure.STORE_FULL
    return PullFailure.RETRYING if isinstance(error, PullError | OSError) else PullFailure.FAILED


if __name__ == "__main__":
    main()
