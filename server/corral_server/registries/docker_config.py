"""Logins by registry, from the content of a ``.dockerconfigjson``.

- A key of ``auths`` is a host, a URL, or a host with a path, which then holds for the repositories below it; a host may
  have ``*`` in place of a label, as the kubelet allows it. The longest matching path has precedence, then exact hosts.
- Docker Hub has three names: ``docker.io``, ``index.docker.io`` (as in ``https://index.docker.io/v1/``) and
  ``registry-1.docker.io``.
- Credential helpers are programs on the machine of the login and are not supported.

Formats: https://kubernetes.io/docs/concepts/containers/images/#config-json and Docker's cli/config/types/authconfig.go.
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
from dataclasses import dataclass, field
from typing import Final

from corral_core.base.errors import SourceError
from corral_core.base.json_fields import JsonObject, get_object, get_str
from corral_core.base.received_json import parse_received_object

DOCKER_HUB: Final = "registry-1.docker.io"
"""Host of Docker Hub's API."""
_DOCKER_HUB_NAMES: Final = ("docker.io", "index.docker.io", DOCKER_HUB)
_LIMIT: Final = 1024 * 1024
"""Bytes of a docker config; a Secret of Kubernetes holds at most as many."""


@dataclass(frozen=True, slots=True)
class Login:
    """Either user and password, or a refresh token (``identity_token``), or a bearer token (``registry_token``)."""

    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)
    registry_token: str = field(default="", repr=False)


NO_LOGIN: Final = Login()


def api_host(registry: str) -> str:
    """Return the host of the registry's API, in lower case."""
    host = registry.lower()
    return DOCKER_HUB if host in _DOCKER_HUB_NAMES else host


def find_login(config: str, registry: str, *, repository: str) -> Login:
    """Return the login for a repository, ``NO_LOGIN`` if there is none. Raises SourceError if the config is invalid."""
    if not config:
        return NO_LOGIN
    try:
        entries = get_object(parse_received_object(config.encode(), limit=_LIMIT), "auths")
    except ValueError as error:
        raise SourceError(f"the docker config (.dockerconfigjson) is not valid: {error}") from None
    matches = [key for key in entries if _matches(key, api_host(registry), repository)]
    if not matches:
        return NO_LOGIN
    best = max(matches, key=lambda key: (len(_split(key)[1]), "*" not in key))
    return _login(get_object(entries, best), best)


def _matches(key: str, host: str, repository: str) -> bool:
    pattern, path = _split(key)
    return _host_matches(pattern, host) and (not path or f"{repository}/".startswith(f"{path}/"))


def _host_matches(pattern: str, host: str) -> bool:
    labels, patterns = host.split("."), pattern.split(".")
    if "*" not in pattern:
        return pattern == host
    return len(labels) == len(patterns) and all(map(fnmatch.fnmatchcase, labels, patterns))


def _split(key: str) -> tuple[str, str]:
    """Return host and path of a key; the API's version in a URL is not a path."""
    host, _, path = key.partition("://")[2].partition("/") if "://" in key else key.partition("/")
    path = path.strip("/")
    return api_host(host), "" if path in ("v1", "v2") else path


def _login(entry: JsonObject, key: str) -> Login:
    username, password = get_str(entry, "username"), get_str(entry, "password")
    if encoded := get_str(entry, "auth"):
        username, password = _decoded(encoded, key)
    return Login(username, password, get_str(entry, "identitytoken"), get_str(entry, "registrytoken"))


def _decoded(encoded: str, key: str) -> tuple[str, str]:
    try:
        username, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        colon = ""
    if not colon:
        raise SourceError(f"the docker config's entry for {key!r} is not valid: 'auth' must be base64 of user:password")
    return username, password.rstrip("\0")
