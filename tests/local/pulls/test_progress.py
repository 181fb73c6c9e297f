"""Progress of pulls in words, on a terminal and in a log without one."""

from __future__ import annotations

import io
import json

import pytest

from corral_core.sources.snapshot import FileRole, Snapshot, SnapshotFile, snapshot_id
from corral_server.gateway.directory.directory import PullingFile
from corral_server.local.event_log import EventLog
from corral_server.local.pulls.file_progress import pulling_files
from corral_server.local.pulls.progress_line import ProgressLine
from corral_server.local.pulls.progress_text import duration_text, progress_text, size_text
from corral_server.local.pulls.pull_log import PullLog
from corral_server.pull.progress import PullProgress, PullStage
from corral_server.pull.remote_files import HttpLocation, RemoteFile

URI = "ollama://llama3.2:1b"
HALF = PullProgress(2_000_000_000, 1_000_000_000, 50_000_000.0, "model.gguf", PullStage.PULLING)
SNAPSHOT = Snapshot(snapshot_id(URI, "1"), URI, "1", (SnapshotFile("m.gguf", FileRole.WEIGHTS, "ab" * 32, 2 * 10**9),))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (HALF, "[##########..........]  50 %  1.0 GB of 2.0 GB  50.0 MB/s  20s left"),
        (PullProgress(None, 1_500, 0.0, "", PullStage.PULLING), "1.5 KB  0 B/s"),
        (PullProgress(None, 0, 0.0, "", PullStage.RESOLVING), "resolving"),
        (PullProgress(100, 100, 0.0, "m", PullStage.VERIFYING), "verifying"),
    ],
)
def test_progress_is_one_line(progress: PullProgress, text: str) -> None:
    assert progress_text(progress) == text


def test_sizes_and_durations_are_short() -> None:
    assert [size_text(size) for size in (0, 999, 1_300_000_000)] == ["0 B", "999 B", "1.3 GB"]
    assert [duration_text(seconds) for seconds in (5, 80, 3720)] == ["5s", "1m20s", "1h02m"]


def test_a_terminal_keeps_the_progress_below_the_events() -> None:
    stream = Terminal()
    log = EventLog(stream, human=True)
    pulls = PullLog(log)
    pulls.started(URI)
    pulls.progressed(URI, HALF)
    log.event("listening", url="http://127.0.0.1:11434")
    pulls.pulled(URI, SNAPSHOT, 12.0)
    rows = stream.getvalue().replace("\r\x1b[K", "\n\r").split("\n")
    shown = [row for row in rows if "50 %" in row]
    assert len(shown) == 2, "it is drawn again below the event"
    assert all(row.strip("\r").startswith(f"{URI} [####") for row in shown)
    assert rows[-1] == "", "it is gone when the pull has ended"


def test_a_log_without_a_terminal_has_events_of_json() -> None:
    stream = io.StringIO()
    pulls = PullLog(EventLog(stream, human=False))
    pulls.started(URI)
    pulls.progressed(URI, HALF)
    pulls.failed(URI, "no such tag", 5.0)
    pulls.pulled(URI, SNAPSHOT, 12.0)
    events = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["pulling", "pull_failed", "pulled"]
    assert (events[1]["reason"], events[1]["retry_s"]) == ("no such tag", 5.0)
    assert (events[2]["size"], events[2]["pin"]) == ("2.0 GB", "1")


def test_a_command_without_a_terminal_prints_a_line_for_each_stage() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)
    for progress in (PullProgress(None, 0, 0.0, "", PullStage.RESOLVING), HALF, HALF):
        line.show(progress)
    line.end()
    assert stream.getvalue().splitlines() == ["resolving", progress_text(HALF)]


def test_files_are_pulled_one_after_the_other() -> None:
    def file(name: str, size: int | None, sha256: str | None) -> RemoteFile:
        return RemoteFile(name, FileRole.WEIGHTS, HttpLocation(""), size=size, sha256=sha256)

    files = [file("a", 100, "ab" * 32), file("b", 50, "cd" * 32), file("c", None, None)]
    found = pulling_files(files, 170)
    assert found[:2] == (PullingFile("ab" * 32, 100, 100), PullingFile("cd" * 32, 50, 50))
    assert (len(found[2].digest), found[2].total, found[2].completed) == (64, 0, 20)
    assert [one.completed for one in pulling_files(files, 120)] == [100, 20, 0]
