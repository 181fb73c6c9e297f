"""Fields of a Modelfile from files of a repository: ``template``, ``system`` and ``params`` in its root.

Hugging Face's registry for Ollama reads these three (https://huggingface.co/docs/hub/ollama): a template of Go's
text/template, a system prompt, and a JSON object of parameters. Files of these names that are larger than a field may
be are something else and are not read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from corral_core.base.errors import SourceError
from corral_core.contracts.source_defaults import MAX_TEXT, NO_DEFAULTS, SourceDefaults
from corral_server.pull.http_requests import HttpRequests
from corral_server.pull.resolvers.hubs.repository import HubApi, HubFile
from corral_server.pull.resolvers.modelfile_parts import parse_parameters, parse_text

TEMPLATE: Final = "template"
SYSTEM: Final = "system"
PARAMETERS: Final = "params"
_NAMES: Final = (TEMPLATE, SYSTEM, PARAMETERS)


def read_defaults(
    http: HttpRequests, api: HubApi, repository: str, *, commit: str, files: Iterable[HubFile]
) -> SourceDefaults:
    """Read the files of a Modelfile among a repository's files. Raises SourceError and TransientError."""
    if not api.has_modelfile_files:
        return NO_DEFAULTS
    names = {file.path for file in files if file.path in _NAMES and file.size and file.size <= MAX_TEXT}
    contents = {name: _content(http, api, repository, commit=commit, name=name) for name in sorted(names)}
    return SourceDefaults(
        template=parse_text(contents.get(TEMPLATE, b""), "template"),
        system=parse_text(contents.get(SYSTEM, b""), "system prompt"),
        parameters=parse_parameters(contents[PARAMETERS]) if PARAMETERS in contents else {},
    )


def _content(http: HttpRequests, api: HubApi, repository: str, *, commit: str, name: str) -> bytes:
    location = api.location(repository, commit, path=name)
    response = http.request("GET", location.url, headers=location.headers, limit=MAX_TEXT)
    if response.status != 200:
        raise SourceError(f"the repository's file {name!r} cannot be read: the hub answered with {response.status}")
    return response.body
