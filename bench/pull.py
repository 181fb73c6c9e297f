"""Download of weights compared with aria2c and curl: speed on loopback, memory, and speed on a bad line.

    python bench/pull.py [--rounds 3] [--only loopback|memory|lossy] [--folder DIR]

- loopback: 2 GB from nginx, in turns. Corral computes the SHA-256 and syncs the file before it publishes it; aria2c is
  measured with and without its checksum, curl has none. The time of Corral is that of the download in a running
  process; the time with the start of its interpreter is printed beside it.
- memory: peak resident memory of a process that downloads 40 GB. The content is zeros, which take no room on the
  compressed disk in memory (zram) that the program creates; without one, 4 GB are downloaded to the folder.
- lossy: a line with 200 ms round-trip time, 5 % loss and 2 MB/s (``lossy_line.py``), with cubic, Linux' default. Both
  sides download for a limited time or to the end; rates are compared.

Needs root, nginx, aria2c and curl. The last line is a JSON object: ``pull_vs_aria2c`` (aria2c without checksum),
``pull_vs_curl_lossy``, ``rss_mib``, and the variants.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.lossy_line import SERVER, LossyLine

LOOPBACK_BYTES = 2 * 10**9
HUGE_BYTES = 40 * 10**9
SMALL_HUGE_BYTES = 4 * 10**9
LOSSY_BYTES = 16 * 10**6
LOSSY_SECONDS = 90
PORT = 18480
CONNECTIONS = 8


def child(url: str, store: Path, size: int, sha256: str | None) -> None:
    """Download in this process and print seconds and peak memory as JSON."""
    from corral_core.sources.snapshot import FileRole
    from corral_server.pull.download.downloader import Downloader
    from corral_server.pull.http.client import HttpClient
    from corral_server.pull.http.settings import network_settings
    from corral_server.pull.remote_files import HttpLocation, RemoteFile
    from corral_server.pull.store import WeightsStore

    client = HttpClient(network_settings({"CORRAL_PLAIN_HTTP_HOSTS": f"127.0.0.1,{SERVER}"}))
    file = RemoteFile("model.gguf", FileRole.WEIGHTS, HttpLocation(url), size, sha256)
    started = time.monotonic()
    Downloader(WeightsStore(store), client).fetch(file, lambda progress: None)
    seconds = time.monotonic() - started
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "rss_mib": round(peak / 1024, 1)}))
    os._exit(0)


def ours(url: str, folder: Path, *, size: int, sha256: str | None, inside: tuple[str, ...] = ()) -> dict[str, float]:
    store = folder / "store"
    shutil.rmtree(store, ignore_errors=True)
    command = [*inside, sys.executable, __file__, "--child", url, str(store), str(size), sha256 or ""]
    started = time.monotonic()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    figures: dict[str, float] = json.loads(done.stdout)
    shutil.rmtree(store)
    return figures | {"with_start": time.monotonic() - started}


def timed(command: list[str], output: Path) -> float:
    output.unlink(missing_ok=True)
    started = time.monotonic()
    subprocess.run(command, check=True)
    seconds = time.monotonic() - started
    output.unlink()
    return seconds


def aria2c(url: str, folder: Path, *, sha256: str = "") -> float:
    checksum = [f"--checksum=sha-256={sha256}"] if sha256 else []
    options = [f"-x{CONNECTIONS}", f"-s{CONNECTIONS}", "-k", "4M", "--file-allocation=none", "-q", *checksum]
    return timed(["aria2c", *options, "-d", str(folder), "-o", "out", url], folder / "out")


def curl(url: str, folder: Path) -> float:
    return timed(["curl", "-s", "-o", str(folder / "out"), url], folder / "out")


@contextlib.contextmanager
def nginx(folder: Path, *, address: str, inside: tuple[str, ...] = ()) -> Iterator[str]:
    """Serve a folder; yields the base URL."""
    state = folder / "nginx"
    state.mkdir(exist_ok=True)
    paths = "".join(f"{kind}_temp_path {state};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (state / "nginx.conf").write_text(
        f"user root; worker_processes 2; pid {state}/pid; error_log {state}/error.log; daemon off; events {{}}\n"
        f"http {{ access_log off; sendfile on; tcp_nopush on; {paths}\n"
        f"server {{ listen {address}:{PORT}; root {folder}; }} }}\n"
    )
    process = subprocess.Popen([*inside, "nginx", "-c", str(state / "nginx.conf"), "-e", str(state / "error.log")])
    try:
        deadline = time.monotonic() + 10
        probe = [*inside, "curl", "-s", "-o", "/dev/null", f"http://{address}:{PORT}/"]
        while subprocess.run(probe, check=False).returncode and time.monotonic() < deadline:
            time.sleep(0.05)
        yield f"http://{address}:{PORT}"
    finally:
        process.terminate()
        process.wait(10)


def write_random(path: Path, size: int) -> str:
    """Write ``size`` bytes that do not compress and return their SHA-256."""
    block, digest = os.urandom(16 * 2**20), hashlib.sha256()
    with path.open("wb") as file:
        while size > 0:
            piece = block[:size]
            file.write(piece)
            digest.update(piece)
            size -= len(piece)
    return digest.hexdigest()


def loopback(folder: Path, rounds: int) -> dict[str, float]:
    sha256 = write_random(folder / "weights", LOOPBACK_BYTES)
    names = ("corral", "corral_with_start", "aria2c", "aria2c_checksum", "curl")
    sides: dict[str, list[float]] = {name: [] for name in names}
    with nginx(folder, address="127.0.0.1") as base:
        url = f"{base}/weights"
        for _ in range(rounds):
            figures = ours(url, folder, size=LOOPBACK_BYTES, sha256=sha256)
            sides["corral"].append(figures["seconds"])
            sides["corral_with_start"].append(figures["with_start"])
            sides["aria2c"].append(aria2c(url, folder))
            sides["aria2c_checksum"].append(aria2c(url, folder, sha256=sha256))
            sides["curl"].append(curl(url, folder))
    (folder / "weights").unlink()
    medians = {side: statistics.median(seconds) for side, seconds in sides.items()}
    for side, seconds in sides.items():
        print(f"{side:>20} {medians[side]:7.2f} s   ({', '.join(f'{value:.2f}' for value in seconds)})")
    return {
        "pull_vs_aria2c": medians["aria2c"] / medians["corral"],
        "pull_vs_aria2c_checksum": medians["aria2c_checksum"] / medians["corral"],
        "pull_vs_curl": medians["curl"] / medians["corral"],
    }


@contextlib.contextmanager
def compressed_disk(size: int) -> Iterator[Path | None]:
    """Mount a disk in compressed memory, on which zeros take no room; yields None if there is no zram."""
    control = Path("/sys/class/zram-control")
    if not control.exists():
        yield None
        return
    number = (control / "hot_add").read_text().strip()
    mount = Path(tempfile.mkdtemp(prefix="corral-zram-"))
    try:
        Path(f"/sys/block/zram{number}/disksize").write_text(str(size))
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", f"/dev/zram{number}"], check=True)
        subprocess.run(["mount", f"/dev/zram{number}", str(mount)], check=True)
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=False)
        (control / "hot_remove").write_text(number)
        mount.rmdir()


def memory(folder: Path) -> dict[str, float]:
    with compressed_disk(HUGE_BYTES + 4 * 10**9) as disk, nginx(folder, address="127.0.0.1") as base:
        size = SMALL_HUGE_BYTES if disk is None else HUGE_BYTES
        with (folder / "sparse").open("wb") as file:
            file.truncate(size)
        figures = ours(f"{base}/sparse", disk or folder, size=size, sha256=None)
    print(f"{size / 1e9:>18.0f} GB {figures['seconds']:7.1f} s   {figures['rss_mib']} MiB resident at most")
    return {"rss_mib": figures["rss_mib"]}


def lossy(folder: Path, congestion: str) -> float:
    """Return the rate of Corral divided by that of curl."""
    sha256 = write_random(folder / "weights", LOSSY_BYTES)
    with (
        LossyLine(loss=0.05, delay=0.1, rate=2_000_000, congestion=congestion) as line,
        nginx(folder, address=SERVER, inside=tuple(line.server)) as base,
    ):
        url = f"{base}/weights"
        figures = ours(url, folder, size=LOSSY_BYTES, sha256=sha256, inside=tuple(line.client))
        output = folder / "out"
        started = time.monotonic()
        subprocess.run([*line.client, "curl", "-s", "-m", str(LOSSY_SECONDS), "-o", str(output), url], check=False)
        curl_rate = output.stat().st_size / (time.monotonic() - started)
        output.unlink()
    rate = LOSSY_BYTES / figures["seconds"]
    print(f"{congestion:>20} Corral {rate / 1e3:7.0f} kB/s, curl {curl_rate / 1e3:7.0f} kB/s: {rate / curl_rate:.2f}")
    return rate / curl_rate


def main() -> None:
    parser = argparse.ArgumentParser(description="Download of weights compared with aria2c and curl.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["loopback", "memory", "lossy"])
    parser.add_argument("--folder", type=Path, help="where files are written; default: the folder for temporary files")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        url, store, size, sha256 = arguments.child
        child(url, Path(store), int(size), sha256 or None)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="corral-pull-", dir=arguments.folder) as name:
        folder = Path(name)
        if arguments.only in (None, "loopback"):
            figures |= loopback(folder, arguments.rounds)
        if arguments.only in (None, "memory"):
            figures |= memory(folder)
        if arguments.only in (None, "lossy"):
            figures["pull_vs_curl_lossy"] = lossy(folder, "cubic")
            figures["pull_vs_curl_lossy_bbr"] = lossy(folder, "bbr")
    print(json.dumps({key: round(value, 2) for key, value in figures.items()}))


if __name__ == "__main__":
    main()
