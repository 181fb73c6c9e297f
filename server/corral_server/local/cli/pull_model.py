"""``corral pull NAME``: have the server pull a model, and follow the pull."""

from __future__ import annotations

import time

import ollama

from corral_server.local.cli.api_client import client_errors, connect
from corral_server.local.pulls.progress_line import ProgressLine, progress_line
from corral_server.pull.progress import PullProgress, PullStage


def pull_model(name: str) -> int:
    """Follow the pull of a model until it has ended."""
    client = connect()
    with client_errors(), progress_line() as line:
        follow_pull(client, name, line)
    print(f"{name} is pulled")
    return 0


def follow_pull(client: ollama.Client, name: str, line: ProgressLine) -> None:
    """Request the pull and show its progress until it has ended. Raises the client's errors."""
    start, first = time.monotonic(), -1
    files: dict[str, tuple[int, int]] = {}
    for report in client.pull(name, stream=True):
        if report.digest:
            files[report.digest] = (report.completed or 0, report.total or 0)
            completed, total = (sum(sizes) for sizes in zip(*files.values(), strict=True))
            first = completed if first < 0 else first
            rate = (completed - first) / max(0.001, time.monotonic() - start)
            line.show(PullProgress(total or None, completed, rate, report.digest, PullStage.PULLING))
