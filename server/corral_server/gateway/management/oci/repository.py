"""The repository that blobs are written to, and the login for it, from the gateway's settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from corral_core.base.errors import InvalidSetting, SourceError
from corral_core.base.settings import str_setting
from corral_core.sources.forms import OciSource
from corral_core.sources.uri import parse_source
from corral_server.registries.docker_config import NO_LOGIN, Login, api_host, find_login

REPOSITORY_SETTING: Final = "CORRAL_BLOBS_REPOSITORY"
CREDENTIALS_SETTING: Final = "CORRAL_BLOBS_CREDENTIALS"

_MAX_FILE: Final = 512 * 1024
_DOCKER_CONFIG: Final = ".dockerconfigjson"


@dataclass(frozen=True, slots=True)
class BlobRepository:
    """``registry`` is ``host[:port]``. ``scheme`` is ``https``, or ``http`` for a registry without TLS.

    ``credentials`` is the folder of a mounted Secret, None for no login.
    """

    registry: str
    name: str
    scheme: str = "https"
    credentials: Path | None = None

    @property
    def origin(self) -> str:
        """Base of all URLs of the registry."""
        return f"{self.scheme}://{api_host(self.registry)}"

    @property
    def url(self) -> str:
        """Base of the URLs of the repository, without a slash at the end."""
        return f"{self.origin}/v2/{self.name}"

    def login(self) -> Login:
        """Read the login; the kubelet replaces the files when the Secret changes.

        They are username and password, or a docker config. Raises InvalidSetting, without a value of the Secret.
        """
        if self.credentials is None:
            return NO_LOGIN
        try:
            username, password, config = (_content(self.credentials / name) for name in _FILES)
            login = Login(username.strip(), password.strip()) if username else self._find_login(config)
        except (OSError, UnicodeDecodeError, SourceError) as error:
            raise InvalidSetting(f"{CREDENTIALS_SETTING}: the Secret cannot be used: {error}") from None
        if login == NO_LOGIN:
            raise InvalidSetting(
                f"{CREDENTIALS_SETTING}: the Secret must have the keys username and password, or a {_DOCKER_CONFIG} "
                f"with an entry for {self.registry}"
            )
        return login

    def _find_login(self, config: str) -> Login:
        return find_login(config, self.registry, repository=self.name)


_FILES: Final = ("username", "password", _DOCKER_CONFIG)


def blob_repository(environ: Mapping[str, str]) -> BlobRepository | None:
    """Read the settings; None without a repository. Raises InvalidSetting."""
    text = str_setting(environ, REPOSITORY_SETTING)
    if not text:
        return None
    scheme, _, rest = text.rpartition("://")
    try:
        source = parse_source(f"oci://{rest}")
    except SourceError:
        raise _invalid(text) from None
    written_out = isinstance(source, OciSource) and rest == f"{source.registry}/{source.repository}"
    if scheme not in ("", "http", "https") or not isinstance(source, OciSource) or not written_out:
        raise _invalid(text)
    folder = str_setting(environ, CREDENTIALS_SETTING)
    repository = BlobRepository(source.registry, source.repository, scheme or "https", Path(folder) if folder else None)
    repository.login()
    return repository


def _content(path: Path) -> str:
    """Return the text of a file, nothing without the file. Raises OSError and UnicodeDecodeError."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return file.read(_MAX_FILE).decode()


def _invalid(text: str) -> InvalidSetting:
    shown = re.sub("//[^/@]*@", "//***@", text)
    return InvalidSetting(
        f"{REPOSITORY_SETTING}={shown!r} is not allowed: write registry/repository, such as "
        "registry.example/corral/blobs, without a tag; http:// before it for a registry without TLS"
    )
