"""Repository of a hub: what every hub's API gives to the resolver.

- A hub is untrusted: an entry of a list whose path, size or digest is invalid is left out, and ``listed_file`` is the
  only place that makes a ``HubFile``.
- A commit is a full hash. A revision is a branch, a tag or a commit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from corral_core.base.received_json import parse_received
from corral_core.sources.snapshot import check_file_name, is_sha256
from corral_server.pull.http_requests import RESPONSE_LIMIT, HttpResponse
from corral_server.pull.remote_files import HttpLocation

MAX_LISTED: Final = 100_000
"""Files of a repository."""
_MAX_PATH: Final = 1024
_MAX_SIZE: Final = 2**63
_MAX_MESSAGE: Final = 200
_COMMIT: Final = re.compile("[0-9a-f]{40}([0-9a-f]{24})?")


class UnusableResponse(ValueError):
    """A hub's response that is not what its API promises; the text has no data of the response."""


@dataclass(frozen=True, slots=True)
class HubFile:
    """``path`` is relative to the repository and cannot leave it; ``size`` in bytes; ``sha256`` in hex digits.

    ``size`` and ``sha256`` are None if the hub does not list them. ``commit`` is the last one that changed the file,
    as far as the hub lists it.
    """

    path: str
    size: int | None
    sha256: str | None
    commit: str = ""
    committed: int = 0

    @property
    def name(self) -> str:
        """File name without folders."""
        return self.path.rpartition("/")[2]


class HubApi(Protocol):
    """API of one hub. Every method raises SourceError, whose text says what to do, and TransientError.

    ``has_modelfile_files``: whether files in the repository's root stand for fields of a Modelfile (``modelfile``).
    """

    has_modelfile_files: bool

    def commit(self, repository: str, revision: str | None) -> str:
        """Return the commit of a revision, of the hub's default branch without one."""
        ...

    def files(self, repository: str, commit: str) -> tuple[HubFile, ...]:
        """Return all files of a commit, in the order of the hub."""
        ...

    def location(self, repository: str, commit: str, *, path: str) -> HttpLocation:
        """Return the location of a file."""
        ...

    def check_access(self, repository: str, commit: str, *, path: str) -> None:
        """Raise SourceError if the hub refuses to send the file, before a download begins."""
        ...

    def conversions(self, repository: str) -> str:
        """Return where to search for a GGUF conversion of a repository, for an error."""
        ...


def is_commit(revision: str) -> bool:
    """Return whether a revision is the full hash of a commit: SHA-1, or SHA-256 in new repositories of git."""
    return _COMMIT.fullmatch(revision) is not None


def listed_file(
    path: object, size: object, *, sha256: object, commit: object = "", committed: object = 0
) -> HubFile | None:
    """Return a listed file from untrusted values, None if the path or the digest is invalid.

    An empty digest is that of a file for which the hub lists none.
    """
    if not isinstance(path, str) or not _is_plain_path(path):
        return None
    if sha256 and not (isinstance(sha256, str) and is_sha256(sha256.lower())):
        return None
    return HubFile(
        path=path,
        size=size if isinstance(size, int) and not isinstance(size, bool) and 0 <= size < _MAX_SIZE else None,
        sha256=sha256.lower() if isinstance(sha256, str) and sha256 else None,
        commit=commit if isinstance(commit, str) and is_commit(commit) else "",
        committed=committed if isinstance(committed, int) else 0,
    )


def parsed(response: HttpResponse) -> object:
    """Return the JSON document of a response. Raises UnusableResponse."""
    try:
        return parse_received(response.body, limit=RESPONSE_LIMIT)
    except ValueError:
        raise UnusableResponse("the response is not valid JSON") from None


def server_message(response: HttpResponse, *names: str) -> str:
    """Return the hub's error message from a header or a JSON field of these names, printable and bounded."""
    found: object = next((response.headers[name] for name in names if name in response.headers), "")
    if not found:
        try:
            body = parsed(response)
        except UnusableResponse:
            body = {}
        if isinstance(body, Mapping):
            found = next((body[name] for name in names if isinstance(body.get(name), str)), "")
    text = "".join(character if character.isprintable() else " " for character in str(found))
    return " ".join(text.split())[:_MAX_MESSAGE]


def _is_plain_path(path: str) -> bool:
    """Check that a path is relative, has no ``..``, and ends in a usable file name, which a hidden file has not."""
    *folders, name = path.split("/")
    if (
        len(path) > _MAX_PATH
        or not path.isprintable()
        or "\\" in path
        or any(part in ("", ".", "..") for part in folders)
    ):
        return False
    try:
        check_file_name(name)
    except ValueError:
        return False
    return True
