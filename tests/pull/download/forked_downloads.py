"""Process that downloads in forked children, so that a test can kill them: a fork is faster than an interpreter.

    python -m tests.pull.download.forked_downloads STORE PIECE DELAY

The server sends ``PIECE`` bytes every ``DELAY`` seconds on each connection. For each line on standard input the process
starts a child and prints its process id; when the child has ended, it prints ``ended STATUS SENT``: the exit status (0
after a complete download, negative for a signal) and the bytes that the server has sent to all children so far.
"""

from __future__ import annotations

import itertools
import mmap
import os
import sys
import time
from pathlib import Path

from corral_server.pull.download.downloader import Downloader
from corral_server.pull.download.options import DownloadOptions
from corral_server.pull.store import WeightsStore
from tests.pull.download.range_server import Fault, RangeServer
from tests.pull.download.samples import CONTENT, FILE

OPTIONS = DownloadOptions(
    parallel=4, save_interval=0.01, progress_interval=0.01, first_part=200_000, min_part=50_000, buffer=16_384
)


def download(store: Path, piece: int, *, delay: float, sent: mmap.mmap) -> None:
    def count(position: int) -> None:
        time.sleep(delay)  # the latency of a slow server, so that a kill meets the download
        sent[:8] = (int.from_bytes(sent[:8], "little") + piece).to_bytes(8, "little")

    server = RangeServer(CONTENT, itertools.repeat(Fault(piece=piece)), on_read=count)
    found = Downloader(WeightsStore(store), server, options=OPTIONS).fetch(FILE, lambda progress: None)
    assert found.sha256 == FILE.sha256


def main() -> None:
    store, piece, delay = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
    sent = mmap.mmap(-1, 8)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                download(store, piece, delay=delay, sent=sent)
                status = 0
            finally:
                os._exit(status)
        print(child, flush=True)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print("ended", status, int.from_bytes(sent[:8], "little"), flush=True)


if __name__ == "__main__":
    main()
