"""API of Hugging Face's hub, and of the mirrors and caching proxies that forward it.

Requests are those of the ``huggingface_hub`` library (``HfApi.repo_info``, ``HfApi.list_repo_tree``,
``file_download.get_hf_file_metadata``), since proxies forward nothing else:

- ``GET /api/models/{repository}/revision/{revision}``: ``sha`` is the commit.
- ``GET /api/models/{repository}/tree/{commit}?recursive=true``: pages of files, joined by ``Link: rel="next"``. Of a
  link only the query is used: a mirror may leave the hub's own address in it, to which no token may go.
- ``/{repository}/resolve/{commit}/{path}`` redirects to a content server. Files in Xet storage as well: a download by
  ranges needs no Xet client (https://huggingface.co/docs/xet/file-id).
- Errors have ``X-Error-Code`` (``utils/_http.py``, ``hf_raise_for_status``). Without a token, 401 stands for a missing
  repository as well as for a private one. A gated repository is listed for everyone; only its files are refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlsplit

from corral_core.base.errors import SourceError
from corral_server.pull.errors import TransientError
from corral_server.pull.http_requests import HttpRequests, HttpResponse
from corral_server.pull.remote_files import HttpLocation
from corral_server.pull.resolvers.hubs.repository import (
    MAX_LISTED,
    HubFile,
    UnusableResponse,
    is_commit,
    listed_file,
    parsed,
    server_message,
)

DEFAULT_REVISION: Final = "main"
MAX_PAGES: Final = 200
"""Pages of a list of files; the hub's pages have 1,000 entries."""

_NEXT: Final = re.compile(r'<([^<>]{1,8192})>[^<>,]*;\s*rel="?next"?')
_QUERY: Final = re.compile(r"[A-Za-z0-9._~%!$&'()*+,;=:@/?-]{1,4096}")
_REFUSED: Final = (401, 403)


class HuggingFaceApi:
    """``headers`` have the credentials; they are sent to the endpoint's host alone."""

    has_modelfile_files = True

    def __init__(self, http: HttpRequests, endpoint: str, *, headers: Mapping[str, str]) -> None:
        self._http = http
        self._endpoint = endpoint
        self._headers = headers

    def commit(self, repository: str, revision: str | None) -> str:
        """Return the commit of a branch, a tag or an abbreviated commit."""
        wanted = revision or DEFAULT_REVISION
        url = f"{self._endpoint}/api/models/{repository}/revision/{quote(wanted, safe='')}"
        body = self._parsed(self._get(url, repository, revision=wanted))
        commit = body.get("sha") if isinstance(body, Mapping) else None
        if not isinstance(commit, str) or not is_commit(commit):
            raise SourceError(f"{self._host} does not report the commit of revision {wanted!r}")
        return commit

    def files(self, repository: str, commit: str) -> tuple[HubFile, ...]:
        """Return all files of a commit, page by page."""
        url = f"{self._endpoint}/api/models/{repository}/tree/{commit}"
        query, found = "recursive=true", list[HubFile]()
        for _ in range(MAX_PAGES):
            response = self._get(f"{url}?{query}", repository, revision=commit)
            found.extend(self._listed(response))
            query = _next_query(response.headers.get("link", ""))
            if not query:
                return tuple(found)
            if len(found) > MAX_LISTED:
                break
        raise SourceError(f"the list of the repository's files at {self._host} does not end; name another repository")

    def location(self, repository: str, commit: str, *, path: str) -> HttpLocation:
        """Return the URL of a file at a commit."""
        return HttpLocation(f"{self._endpoint}/{repository}/resolve/{commit}/{quote(path)}", self._headers)

    def check_access(self, repository: str, commit: str, *, path: str) -> None:
        """Ask for the headers of a file; only a refusal is an error, since not every mirror answers HEAD."""
        location = self.location(repository, commit, path=path)
        try:
            response = self._http.request("HEAD", location.url, headers=location.headers, redirects=False)
        except TransientError:
            return
        if response.status in _REFUSED:
            raise self._error(response, repository, revision=commit)

    def conversions(self, repository: str) -> str:
        """Return the URL of the hub's search for GGUF conversions."""
        return f"{self._endpoint}/models?library=gguf&search={quote(repository.rpartition('/')[2])}"

    @property
    def _host(self) -> str:
        return urlsplit(self._endpoint).netloc

    def _parsed(self, response: HttpResponse) -> object:
        try:
            return parsed(response)
        except UnusableResponse as error:
            raise SourceError(f"{self._host} does not answer as a hub of models: {error}") from None

    def _get(self, url: str, repository: str, *, revision: str) -> HttpResponse:
        response = self._http.request("GET", url, headers=self._headers)
        if response.status != 200:
            raise self._error(response, repository, revision=revision)
        return response

    def _listed(self, response: HttpResponse) -> list[HubFile]:
        entries = self._parsed(response)
        if not isinstance(entries, list):
            raise SourceError(f"{self._host} does not answer as a hub of models: the list of files is not a list")
        files = (_file(entry) for entry in entries if isinstance(entry, Mapping) and entry.get("type") == "file")
        return [file for file in files if file is not None]

    def _error(self, response: HttpResponse, repository: str, *, revision: str) -> SourceError:
        code = response.headers.get("x-error-code", "")
        message = server_message(response, "x-error-message", "error")
        if code == "RevisionNotFound":
            return SourceError(f"the repository has no branch, tag or commit {revision!r}; correct the part after '@'")
        if code == "EntryNotFound":
            return SourceError(f"the repository does not have the requested file at {revision!r}")
        if code == "GatedRepo" or response.status == 403:
            return SourceError(self._gated(repository, message))
        if response.status == 401 or code == "RepoNotFound" or response.status == 404:
            return SourceError(self._not_found(repository, message))
        return SourceError(f"{self._host} answered with status {response.status}{_quoted(message)}")

    def _gated(self, repository: str, message: str) -> str:
        token = "the token is of an account without access" if self._headers else "no token was given"
        return (
            f"{self._host} restricts access to the repository, and {token}{_quoted(message)}. Accept its licence at "
            f"{self._endpoint}/{repository}, and {_GIVE_TOKEN}"
        )

    def _not_found(self, repository: str, message: str) -> str:
        if "Invalid credentials" in message:
            return f"{self._host} does not accept the token; {_GIVE_TOKEN}"
        if self._headers:
            return f"{self._host} has no repository {repository!r}, or the token is of an account without access to it"
        return (
            f"{self._host} has no public repository {repository!r}; correct the name, or, if it is private or gated, "
            f"accept its licence at {self._endpoint}/{repository} and {_GIVE_TOKEN}"
        )


_GIVE_TOKEN: Final = "give a token with read access in spec.sourceSecretRef (on a laptop in HF_TOKEN)"  # noqa: S105


def _file(entry: Mapping[str, object]) -> HubFile | None:
    """Return a listed file. ``oid`` is the SHA-1 of a git blob, ``lfs.oid`` the SHA-256 of a large file."""
    large = entry.get("lfs")
    if not isinstance(large, Mapping):
        return listed_file(entry.get("path"), entry.get("size"), sha256=None)
    return listed_file(entry.get("path"), large.get("size", entry.get("size")), sha256=large.get("oid"))


def _next_query(link: str) -> str:
    """Return the query of the next page's URL, empty if there is no next page."""
    match = _NEXT.search(link[:16384])
    if match is None:
        return ""
    query = match[1].partition("?")[2].partition("#")[0]
    return query if _QUERY.fullmatch(query) else ""


def _quoted(message: str) -> str:
    return f" ({message!r})" if message else ""
