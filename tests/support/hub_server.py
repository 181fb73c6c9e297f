"""Servers with the APIs of Hugging Face's hub and of ModelScope's, as documented, and their content server.

- The hub listens on 127.0.0.1 and the content server on another port, under the name ``localhost``. A large file is a
  redirect there, with a signature in the query.
- The content server refuses a request with credentials, as object stores do that receive two kinds of them, and one
  whose signature is not valid any more. It answers ranges.
- Statuses, headers and bodies of Hugging Face are those that ``huggingface_hub`` reads (``utils/_http.py``,
  ``file_download.py``, ``hf_api.py``), those of ModelScope the ones that ``modelscope_hub`` reads (``_legacy_api.py``).
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.hub_repository import Entry, Repository, is_large


@dataclass(frozen=True)
class Answer:
    """Response of a server."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Seen:
    """Request that a server received; ``headers`` have lower-case names."""

    method: str
    path: str
    headers: Mapping[str, str]

    @property
    def token(self) -> str:
        return self.headers.get("authorization", "").removeprefix("Bearer ")


@dataclass
class HubServer:
    """``tokens`` are valid tokens. ``signature`` is that of the content server's URLs; changing it expires them.

    ``contents`` are the large files by digest, ``replaced`` what the content server sends in place of one.
    ``link_url`` is the address in the links to further pages, by default the hub's own.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    tokens: set[str] = field(default_factory=set)
    page_size: int = 1000
    link_url: str = ""
    signature: str = "s1"
    seen: list[Seen] = field(default_factory=list)
    content_seen: list[Seen] = field(default_factory=list)
    contents: dict[str, bytes] = field(default_factory=dict)
    replaced: dict[str, bytes] = field(default_factory=dict)
    url: str = ""
    content_url: str = ""

    def add(self, repository: Repository) -> Repository:
        self.repositories[repository.name] = repository
        return repository

    def answer(self, request: Seen) -> Answer:
        """Answer a request to the hub."""
        self.seen.append(request)
        parts = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if match := re.fullmatch("/api/v1/models/([^/]+/[^/]+)/repo(/files)?", parts.path):
            return self._modelscope(request, match[1], listing=bool(match[2]), query=query)
        if match := re.fullmatch("/api/models/([^/]+/[^/]+)/(revision|tree)/([^/]+)", parts.path):
            return self._api(request, match[1], kind=match[2], revision=unquote(match[3]), query=query)
        if match := re.fullmatch("/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", parts.path):
            return self._resolve(request, match[1], revision=unquote(match[2]), path=unquote(match[3]))
        return hub_error(404, "EntryNotFound", "Sorry, we can't find the page you are looking for.")

    def content(self, request: Seen) -> Answer:
        """Answer a request to the content server."""
        self.content_seen.append(request)
        parts = urlsplit(request.path)
        if "authorization" in request.headers or "cookie" in request.headers:
            return Answer(400, body=b"<Error><Code>InvalidArgument</Code></Error>")
        if parse_qs(parts.query).get("X-Amz-Signature") != [self.signature]:
            return Answer(403, body=b"<Error><Code>AccessDenied</Code></Error>")
        digest = parts.path.removeprefix("/")
        data = self.replaced.get(digest, self.contents[digest])
        return ranged(data, request.headers.get("range", ""), etag=f'"{_md5(data)}"')

    def _api(self, request: Seen, name: str, *, kind: str, revision: str, query: Mapping[str, str]) -> Answer:
        repository = self.repositories.get(name)
        if (refusal := self._refused(request, repository)) is not None or repository is None:
            return refusal or missing_repository(request)
        commit = repository.resolve(revision)
        if commit is None:
            return hub_error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        tree = repository.commits[commit]
        if kind == "revision":
            siblings = [{"rfilename": path} for path in tree]
            gated = "manual" if repository.gated_for is not None else False
            body = {"_id": "6", "id": name, "modelId": name, "sha": commit, "gated": gated, "private": False}
            return json_answer({**body, "tags": [], "downloads": 1, "siblings": siblings, "author": name.split("/")[0]})
        start = int(base64.b64decode(query["cursor"])) if "cursor" in query else 0
        entries = [tree_entry(path, entry) for path, entry in tree.items()][start : start + self.page_size]
        headers = {}
        if start + self.page_size < len(tree):
            cursor = base64.b64encode(str(start + self.page_size).encode()).decode().replace("=", "%3D")
            address = f"{self.link_url or self.url}/api/models/{name}/tree/{commit}?recursive=true&cursor={cursor}"
            headers["Link"] = f'<{address}>; rel="next"'
        return json_answer(entries, headers)

    def _resolve(self, request: Seen, name: str, *, revision: str, path: str) -> Answer:
        repository = self.repositories.get(name)
        if (refusal := self._refused(request, repository, content=True)) is not None or repository is None:
            return refusal or missing_repository(request)
        commit = repository.resolve(revision)
        if commit is None:
            return hub_error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        entry = repository.commits[commit].get(path)
        if entry is None:
            return hub_error(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if not is_large(path):
            return ranged(entry.data, request.headers.get("range", ""), etag=f'"{entry.git_oid}"', headers=headers)
        headers |= {
            "X-Linked-Size": str(len(entry.data)),
            "X-Linked-ETag": f'"{entry.sha256}"',
            "X-Xet-Hash": hashlib.sha256(b"xet" + entry.data).hexdigest(),
            "ETag": f'"{entry.sha256}"',
        }
        return Answer(302, {**headers, "Location": self._signed(entry)}, b"Found. Redirecting")

    def _modelscope(self, request: Seen, name: str, *, listing: bool, query: Mapping[str, str]) -> Answer:
        repository = self.repositories.get(name)
        allowed = repository is not None and (
            repository.private_for is None
            or request.headers.get("cookie", "").removeprefix("m_session_id=") in repository.private_for
        )
        if repository is None or not allowed:
            return json_answer({"Code": 10010205001, "Message": "record not found", "Success": False}, status=404)
        commit = repository.resolve(query.get("Revision", "master"))
        tree = repository.commits[commit] if commit else None
        if listing:
            files = None if tree is None else [modelscope_entry(path, entry) for path, entry in tree.items()]
            data = {"Files": files, "IsVisual": 0, "LatestCommitter": {"Id": "", "ShortId": ""}}
            return json_answer({"Code": 200, "Data": data, "Message": "success", "Success": True})
        path = query["FilePath"]
        if tree is None or path not in tree:
            return json_answer({"Code": 10990101007, "Message": "file not found", "Success": False}, status=404)
        entry = tree[path]
        if is_large(path):
            return Answer(302, {"Location": self._signed(entry)})
        return ranged(entry.data, request.headers.get("range", ""), etag=f'"{entry.git_oid}"')

    def _refused(self, request: Seen, repository: Repository | None, *, content: bool = False) -> Answer | None:
        if request.token and request.token not in self.tokens:
            return hub_error(401, "", "Invalid credentials in Authorization header")
        if (
            repository is not None
            and repository.private_for is not None
            and request.token not in repository.private_for
        ):
            return missing_repository(request)
        if content and repository is not None and repository.gated_for is not None:
            text = f"Access to model {repository.name} is restricted."
            if not request.token:
                return hub_error(401, "GatedRepo", f"{text} You must have access to it and be authenticated.")
            if request.token not in repository.gated_for:
                return hub_error(403, "GatedRepo", f"{text} You are not in the authorized list.")
        return None

    def _signed(self, entry: Entry) -> str:
        self.contents[entry.sha256] = entry.data
        return f"{self.content_url}/{entry.sha256}?X-Amz-Expires=3600&X-Amz-Signature={self.signature}"


@lru_cache(16)
def _md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def tree_entry(path: str, entry: Entry) -> dict[str, object]:
    """Return an entry of Hugging Face's list of files."""
    made: dict[str, object] = {"type": "file", "oid": entry.git_oid, "size": len(entry.data), "path": path}
    if is_large(path):
        made["lfs"] = {"oid": entry.sha256, "size": len(entry.data), "pointerSize": 134}
        made["xetHash"] = hashlib.sha256(b"xet" + entry.data).hexdigest()
    return made


def modelscope_entry(path: str, entry: Entry) -> dict[str, object]:
    """Return an entry of ModelScope's list of files."""
    return {
        "CommitMessage": "Upload",
        "CommittedDate": entry.changed.time,
        "CommitterName": "someone",
        "InCheck": False,
        "IsLFS": is_large(path),
        "Mode": "33188",
        "Name": path.rpartition("/")[2],
        "Path": path,
        "Revision": entry.changed.id,
        "Sha256": entry.sha256,
        "Size": len(entry.data),
        "Type": "blob",
    }


def hub_error(status: int, code: str, message: str) -> Answer:
    """Return an error of Hugging Face's hub."""
    headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
    return json_answer({"error": message}, headers, status=status)


def missing_repository(request: Seen) -> Answer:
    """Return the error for a missing or private repository, which differs with and without a token."""
    if request.token:
        return hub_error(404, "RepoNotFound", "Repository not found")
    return hub_error(401, "", "Invalid username or password.")


def json_answer(body: object, headers: Mapping[str, str] | None = None, *, status: int = 200) -> Answer:
    """Return a JSON document."""
    return Answer(status, {"Content-Type": "application/json", **(headers or {})}, json.dumps(body).encode())


def ranged(data: bytes, wanted: str, *, etag: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Return a file, or the range of it that a Range header asks for."""
    sent = {**(headers or {}), "ETag": etag, "Accept-Ranges": "bytes"}
    match = re.fullmatch("bytes=([0-9]+)-([0-9]*)", wanted)
    if match is None:
        return Answer(200, sent, data)
    start, end = int(match[1]), min(int(match[2] or len(data) - 1), len(data) - 1)
    if start > end:
        return Answer(416, {**sent, "Content-Range": f"bytes */{len(data)}"})
    return Answer(206, {**sent, "Content-Range": f"bytes {start}-{end}/{len(data)}"}, data[start : end + 1])


class QuietServer(ThreadingHTTPServer):
    """Server that writes nothing about connections that a client has ended."""

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


@contextmanager
def running_hub(hub: HubServer | None = None) -> Iterator[HubServer]:
    """Run the hub and its content server on free ports of the loopback interface."""
    hub = hub or HubServer()
    servers = [
        QuietServer(("127.0.0.1", 0), _handler(lambda request: hub.answer(request))),
        QuietServer(("127.0.0.1", 0), _handler(lambda request: hub.content(request))),
    ]
    hub.url = f"http://127.0.0.1:{servers[0].server_port}"
    hub.content_url = f"http://localhost:{servers[1].server_port}"
    threads = [threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}) for server in servers]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()


def _handler(answer: Callable[[Seen], Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 10

        def do_GET(self) -> None:
            self._send(with_body=True)

        def do_HEAD(self) -> None:
            self._send(with_body=False)

        def log_message(self, format: str, *arguments: object) -> None:
            """Write no log."""

        def _send(self, *, with_body: bool) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            made = answer(Seen(self.command, self.path, headers))
            self.send_response(made.status)
            for name, value in made.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(made.body)))
            self.end_headers()
            if with_body:
                self.wfile.write(made.body)

    return Handler
