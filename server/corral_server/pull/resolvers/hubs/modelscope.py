"""API of ModelScope's hub.

Requests are those of the ``modelscope_hub`` library (``_legacy_api.py``):

- ``GET /api/v1/models/{repository}/repo/files?Revision=...&Recursive=True`` lists all files in one response of at most
  3,000 entries. An unknown revision is a success whose list is null.
- ``GET /api/v1/models/{repository}/repo?Revision=...&FilePath=...`` is a file, or a redirect to a content server.
- The token goes into a session cookie and an Authorization header; older paths read one, newer paths the other.

The list does not name its own commit. Each file has the last commit that changed it, so the newest of these is the
commit to pin: at the first resolution it is listed again, and it must hold all files of the branch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from corral_core.base.errors import SourceError
from corral_server.pull.http_requests import HttpRequests, HttpResponse
from corral_server.pull.remote_files import HttpLocation
from corral_server.pull.resolvers.hubs.repository import (
    HubFile,
    UnusableResponse,
    listed_file,
    parsed,
    server_message,
)

DEFAULT_REVISION: Final = "master"
LISTED_LIMIT: Final = 3000
"""Entries at which the hub truncates a list without notice (``REPO_FILES_TRUNCATION_LIMIT``)."""
_CANDIDATES: Final = 8
"""Commits that are tried as the branch's newest one; more than one only if two are of the same second."""


class ModelScopeApi:
    """``headers`` have the credentials; they are sent to the endpoint's host alone."""

    has_modelfile_files = False

    def __init__(self, http: HttpRequests, endpoint: str, *, headers: Mapping[str, str]) -> None:
        self._http = http
        self._endpoint = endpoint
        self._headers = headers

    def commit(self, repository: str, revision: str | None) -> str:
        """Return the newest commit of a branch or tag."""
        wanted = revision or DEFAULT_REVISION
        branch = self.files(repository, wanted)
        if not branch:
            raise SourceError(f"the repository has no files at revision {wanted!r}")
        contents = {(file.path, file.sha256) for file in branch}
        newest = sorted(branch, key=lambda file: file.committed, reverse=True)
        for commit in list(dict.fromkeys(file.commit for file in newest if file.commit))[:_CANDIDATES]:
            listed = {(file.path, file.sha256) for file in self.files(repository, commit)}
            if contents <= listed:
                return commit
        text = "name a commit (40 hex digits) after '@'"
        raise SourceError(f"{self._host} does not report the commit of revision {wanted!r}; {text}")

    def files(self, repository: str, commit: str) -> tuple[HubFile, ...]:
        """Return all files of a commit, or of another revision."""
        query = urlencode({"Revision": commit, "Recursive": "True"})
        response = self._http.request("GET", f"{self._repository(repository)}/files?{query}", headers=self._headers)
        data = self._data(response, repository)
        entries = data.get("Files", data.get("files")) if isinstance(data, Mapping) else data
        if entries is None:
            raise SourceError(f"the repository has no branch, tag or commit {commit!r}; correct the part after '@'")
        if not isinstance(entries, list):
            raise SourceError(f"{self._host} does not answer as a hub of models: the list of files is not a list")
        if len(entries) >= LISTED_LIMIT:
            raise SourceError(f"the repository has {LISTED_LIMIT} files or more, which {self._host} does not list")
        files = (_file(entry) for entry in entries if isinstance(entry, Mapping) and entry.get("Type") != "tree")
        return tuple(file for file in files if file is not None)

    def location(self, repository: str, commit: str, *, path: str) -> HttpLocation:
        """Return the URL of a file at a commit."""
        query = urlencode({"Revision": commit, "FilePath": path}, quote_via=quote)
        return HttpLocation(f"{self._repository(repository)}?{query}", self._headers)

    def check_access(self, repository: str, commit: str, *, path: str) -> None:
        """Do nothing: the hub lists a repository only to accounts that may read its files."""

    def conversions(self, repository: str) -> str:
        """Return the URL of the hub's search."""
        return f"{self._endpoint}/models?name={quote(repository.rpartition('/')[2] + ' GGUF')}"

    @property
    def _host(self) -> str:
        return urlsplit(self._endpoint).netloc

    def _repository(self, repository: str) -> str:
        return f"{self._endpoint}/api/v1/models/{repository}/repo"

    def _data(self, response: HttpResponse, repository: str) -> object:
        """Return the field ``Data`` of a successful response; the status of an error may be 200."""
        if response.status in (401, 403):
            raise SourceError(f"{self._host} refuses access to the repository{_message(response)}; {_GIVE_TOKEN}")
        if response.status == 404:
            raise SourceError(self._not_found(repository))
        if response.status != 200:
            raise SourceError(f"{self._host} answered with status {response.status}{_message(response)}")
        try:
            body = parsed(response)
        except UnusableResponse as error:
            raise SourceError(f"{self._host} does not answer as a hub of models: {error}") from None
        if not isinstance(body, Mapping) or body.get("Code") != 200:
            raise SourceError(f"{self._host} does not list the repository{_message(response)}")
        return body.get("Data")

    def _not_found(self, repository: str) -> str:
        if self._headers:
            return f"{self._host} has no repository {repository!r}, or the token is of an account without access to it"
        return (
            f"{self._host} has no public repository {repository!r}; correct the name, or, if it is private, "
            f"{_GIVE_TOKEN}"
        )


_GIVE_TOKEN: Final = "give a token in spec.sourceSecretRef (on a laptop in MODELSCOPE_API_TOKEN)"  # noqa: S105


def _file(entry: Mapping[str, object]) -> HubFile | None:
    return listed_file(
        entry.get("Path"),
        entry.get("Size"),
        sha256=entry.get("Sha256"),
        commit=entry.get("Revision"),
        committed=entry.get("CommittedDate"),
    )


def _message(response: HttpResponse) -> str:
    message = server_message(response, "Message", "message")
    return f" ({message!r})" if message else ""
