"""Resolver of ``hf://`` and ``modelscope://``: a repository's commit, and the GGUF files chosen in it.

- The pin is the commit. With a pin the revision is not asked for again, and a moved branch changes nothing.
- The choice of files is ``hubs.gguf_choice``; the requests are those of ``hubs.hugging_face`` and ``hubs.modelscope``.
- Access is checked before a download begins, so that a gated repository is an error within a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from corral_core.base.errors import SourceError
from corral_core.sources.forms import HubSource
from corral_server.pull.credentials import Credentials
from corral_server.pull.http_requests import HttpRequests
from corral_server.pull.remote_files import FileRole, RemoteFile, ResolvedSource
from corral_server.pull.resolvers.authorization import authorization
from corral_server.pull.resolvers.file_names import gguf_name, weights_names
from corral_server.pull.resolvers.hubs.endpoints import HUGGING_FACE
from corral_server.pull.resolvers.hubs.gguf_choice import GGUFChoice, NoGGUFFile, NoMatchingFile, choose_gguf
from corral_server.pull.resolvers.hubs.hugging_face import HuggingFaceApi
from corral_server.pull.resolvers.hubs.modelfile import read_defaults
from corral_server.pull.resolvers.hubs.modelscope import ModelScopeApi
from corral_server.pull.resolvers.hubs.repository import HubApi, HubFile, is_commit


class HubResolver:
    """``endpoints`` has the address of each hub, as of ``hub_endpoints``."""

    def __init__(self, http: HttpRequests, credentials: Credentials, *, endpoints: Mapping[str, str]) -> None:
        self._http = http
        self._credentials = credentials
        self._endpoints = endpoints

    def resolve(self, source: object, *, pin: str = "") -> ResolvedSource:
        """Return the files of a HubSource at its revision, or at the commit ``pin``.

        Raises SourceError, whose text names the repository and what to do, and TransientError.
        """
        assert isinstance(source, HubSource)
        if pin and not is_commit(pin):
            raise SourceError(f"source {source.uri!r}: the pin {pin[:80]!r} is not a commit")
        try:
            return self._resolved(source, self._api(source), pin=pin)
        except (SourceError, NoMatchingFile) as error:
            raise SourceError(f"source {source.uri!r}: {error}") from error

    def _api(self, source: HubSource) -> HubApi:
        endpoint = self._endpoints[source.hub]
        headers = dict(authorization(self._credentials, endpoint))
        if source.hub == HUGGING_FACE:
            return HuggingFaceApi(self._http, endpoint, headers=headers)
        if token := self._credentials.token_for(urlsplit(endpoint).hostname or ""):
            headers["Cookie"] = f"m_session_id={token}"
        return ModelScopeApi(self._http, endpoint, headers=headers)

    def _resolved(self, source: HubSource, api: HubApi, *, pin: str) -> ResolvedSource:
        repository, revision = source.repository, source.revision
        commit = pin or (revision if revision and is_commit(revision) else api.commit(repository, revision))
        files = api.files(repository, commit)
        choice = _choice(source, api, files)
        api.check_access(repository, commit, path=choice.weights[0])
        by_path = {file.path: file for file in reversed(files)}
        return ResolvedSource(
            uri=source.uri,
            pin=commit,
            files=tuple(
                RemoteFile(
                    name,
                    role,
                    api.location(repository, commit, path=path),
                    size=by_path[path].size,
                    sha256=by_path[path].sha256,
                )
                for path, name, role in _named(choice)
            ),
            defaults=read_defaults(self._http, api, repository, commit=commit, files=files),
        )


def _choice(source: HubSource, api: HubApi, files: tuple[HubFile, ...]) -> GGUFChoice:
    path = str(source.path) if source.path is not None else None
    try:
        return choose_gguf([file.path for file in files], quantization=source.quantization, path=path)
    except NoGGUFFile as error:
        search = api.conversions(source.repository)
        raise SourceError(f"{error}; name a repository with a GGUF conversion of it, see {search}") from None


def _named(choice: GGUFChoice) -> list[tuple[str, str, FileRole]]:
    """Return path, name in the snapshot and role of each file; no part of the weights has the projector's name."""
    names = weights_names(PurePosixPath(choice.weights[0]).name)
    files = [(path, name, FileRole.WEIGHTS) for path, name in zip(choice.weights, names, strict=True)]
    if choice.projector is not None:
        name = PurePosixPath(choice.projector).name
        files.append((choice.projector, gguf_name(name if "mmproj" in name else f"mmproj-{name}"), FileRole.PROJECTOR))
    return files
