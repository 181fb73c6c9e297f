"""Notes of published files: the blob that a file was downloaded as, where the digest is not known before the download.

    published/<digest of the file's identity>    sha256 of the blob

- Two pullers of one version download it once, and a pull of several files that was interrupted keeps those it has.
- A file whose version the server does not name has no note: it may be another one now.
- A note may outlive its blob: the blob decides.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Final

from corral_core.sources.snapshot import is_sha256
from corral_server.pull.download.partial import file_identity
from corral_server.pull.remote_files import Archive, RemoteFile
from corral_server.system.durable_files import read_bounded, write_durably

FOLDER: Final = "published"
_DIGEST_LENGTH: Final = 64


def published_digest(store: Path, file: RemoteFile) -> str | None:
    """Return the digest of the file's blob, None if it is not known. The store may lack the blob."""
    if file.sha256 is not None and file.archive is Archive.NONE:
        return file.sha256
    try:
        digest = read_bounded(note_path(store, file), _DIGEST_LENGTH).decode("ascii", "replace")
    except OSError:
        return None
    return digest if is_sha256(digest) else None


def note_published(store: Path, file: RemoteFile, *, sha256: str) -> None:
    """Note the digest of the blob, if the version is known. A store that is full keeps no note."""
    if file.archive is Archive.NONE if file.sha256 is not None else not file.version:
        return
    path = note_path(store, file)
    with contextlib.suppress(OSError):
        path.parent.mkdir(exist_ok=True)
        write_durably(path, sha256.encode())


def note_path(store: Path, file: RemoteFile) -> Path:
    """Return the path of the file's note, whether it exists or not."""
    identity = f"{file_identity(file)} {file.archive} {file.member}"
    return store / FOLDER / hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()
