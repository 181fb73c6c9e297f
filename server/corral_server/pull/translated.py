"""Translation of pulled weights that only Ollama can load: a second blob, which the snapshot has in place of the first.

- The pulled file was verified before. The translation is deterministic: the same file yields the same blob.
- All blobs of the pull are kept from collection meanwhile.
- The file as it was pulled stays in the store until it is collected, so both need room for a while.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from corral_core.base.errors import GGUFError
from corral_core.base.quantities import format_bytes
from corral_core.sources.snapshot import FileRole, SnapshotFile
from corral_core.weights.gguf import read_header
from corral_core.weights.ollama.edits import HeaderEdits
from corral_core.weights.ollama.translations import translate
from corral_server.pull.download.report import Report
from corral_server.pull.errors import PullError, StoreFull
from corral_server.pull.progress import ProgressListener, PullStage
from corral_server.pull.store import WeightsStore
from corral_server.system.durable_files import temporary_name

REPORT_INTERVAL: Final = 0.5
"""Seconds between two reports of the progress."""


def translated_files(
    store: WeightsStore, files: Sequence[SnapshotFile], progress: ProgressListener
) -> tuple[SnapshotFile, ...]:
    """Return the files of a snapshot, with weights that only Ollama can load translated for llama.cpp.

    Raises StoreFull and PullError.
    """
    weights = [file for file in files if file.role is FileRole.WEIGHTS]
    if len(weights) != 1 or (path := store.blob(weights[0].sha256)) is None:
        return tuple(files)
    try:
        edits = translate(read_header(path))
    except GGUFError:
        edits = None  # the runner says what is wrong with the file
    if edits is None:
        return tuple(files)
    translated = _translate(store, path, weights[0], edits=edits, progress=progress)
    return tuple(translated if file is weights[0] else file for file in files)


def _translate(
    store: WeightsStore, path: Path, file: SnapshotFile, *, edits: HeaderEdits, progress: ProgressListener
) -> SnapshotFile:
    if edits.size > (free := store.free()):
        raise StoreFull(
            f"{file.name} is translated for llama.cpp, which needs {format_bytes(edits.size)} beside the pulled file; "
            f"{format_bytes(free)} are free in {store.root}. Delete what is not used (corral cache prune), or enlarge "
            "the volume"
        )
    digest, temporary = hashlib.sha256(), store.partial / temporary_name(f"translated-{file.sha256[:16]}")
    report, written = Report(file.name, progress, interval=REPORT_INTERVAL, keep=store.keep), 0

    def wrote(piece: bytes) -> None:
        nonlocal written
        digest.update(piece)
        written += len(piece)
        report(PullStage.PUBLISHING, min(written, edits.size), total=edits.size)

    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o664)
        with open(descriptor, "wb") as target, path.open("rb") as source:  # noqa: PTH123
            size = edits.write(source, target, wrote=wrote)
            target.flush()
            store.publish_blob(temporary, descriptor, digest.hexdigest())
    except OSError as error:
        raise store.error(error, f"translate {file.name}") from error
    except GGUFError as error:
        raise PullError(f"{file.name} was changed while it was translated: {error}; pull again") from error
    finally:
        temporary.unlink(missing_ok=True)
    return replace(file, sha256=digest.hexdigest(), size=size)
