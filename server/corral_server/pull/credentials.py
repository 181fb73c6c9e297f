"""Credentials of a source, from the files of a mounted Secret or a laptop's environment.

- They reach the puller alone. No ``repr`` and no error has a value; errors name the key.
- A Secret belongs to one source, so its ``token`` is for the server of that source. The environment of a laptop holds
  tokens of several services: each is for the hosts of its service alone (``token_for``).
- Sizes are bounded, and values contain no control characters, so that they can be sent as headers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from corral_core.base.errors import SourceError
from corral_core.base.settings import str_setting

MAX_VALUE: Final = 64 * 1024
MAX_DOCKER_CONFIG: Final = 512 * 1024
MAX_OPTIONS: Final = 64

_OPTION: Final = re.compile(r"(AWS|GOOGLE|AZURE)_[A-Z0-9_]{1,60}")
_TOKEN_KEYS: Final = ("token", "HF_TOKEN", "MODELSCOPE_API_TOKEN")
_KEY_KEYS: Final = ("id_ed25519", "ssh-privatekey")
_DOCKER_KEY: Final = ".dockerconfigjson"
_KEYS: Final = "token, username, password, id_ed25519, .dockerconfigjson, AWS_..., GOOGLE_... and AZURE_..."
_HF_HOSTS: Final = ("huggingface.co", "hf.co")
_MODELSCOPE_HOSTS: Final = ("modelscope.cn", "www.modelscope.cn", "modelscope.ai", "www.modelscope.ai")


@dataclass(frozen=True, slots=True)
class Credentials:
    """All fields are optional and empty by default.

    - ``token``: bearer token (Hugging Face, ModelScope, any HTTPS server); use ``token_for(host)``.
    - ``host_tokens``: bearer tokens by host.
    - ``username``, ``password``: basic authentication, or a registry's token request.
    - ``ollama_key``: OpenSSH private key (ed25519) that signs token requests of Ollama's registry.
    - ``docker_config``: content of ``.dockerconfigjson``, for registries by host.
    - ``options``: variables of the object stores, such as AWS_ACCESS_KEY_ID, GOOGLE_SERVICE_ACCOUNT_KEY,
      AZURE_STORAGE_ACCOUNT_KEY.
    """

    token: str = field(default="", repr=False)
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    ollama_key: str = field(default="", repr=False)
    docker_config: str = field(default="", repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    host_tokens: Mapping[str, str] = field(default_factory=dict, repr=False)

    def token_for(self, host: str) -> str:
        """Return the bearer token for a host (without a port), or nothing."""
        return self.host_tokens.get(host.lower(), self.token)

    @classmethod
    def from_folder(cls, folder: Path) -> Credentials:
        """Read the files of a mounted Secret, one for each key; other keys are ignored.

        Raises SourceError if the Secret has none of the known keys, or a value that cannot be used.
        """
        try:
            names = sorted(path.name for path in folder.iterdir() if path.is_file())
        except OSError as error:
            raise SourceError(f"the Secret at {folder} cannot be read: {error.strerror}") from None
        options = [name for name in names if _OPTION.fullmatch(name)]
        if len(options) > MAX_OPTIONS:
            raise SourceError(f"the Secret has {len(options)} options; at most {MAX_OPTIONS} are supported")
        held = {name: _secret_value(folder / name) for name in names if name in _NAMES or name in options}
        if not held:
            raise SourceError(f"the Secret has none of the keys {_KEYS}; it has {', '.join(names)[:200] or 'none'}")
        return cls(
            token=_first(held, _TOKEN_KEYS),
            username=held.get("username", ""),
            password=held.get("password", ""),
            ollama_key=_first(held, _KEY_KEYS),
            docker_config=held.get(_DOCKER_KEY, ""),
            options={name: held[name] for name in options},
        )

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Credentials:
        """Read what other tools keep on a laptop: variables, and files of the home directory that exist.

        - HF_TOKEN, or the file that ``hf auth login`` writes (HF_TOKEN_PATH, HF_HOME): for huggingface.co, hf.co and
          the host of HF_ENDPOINT.
        - MODELSCOPE_API_TOKEN: for ModelScope and the host of MODELSCOPE_ENDPOINT.
        - variables that begin with AWS_, GOOGLE_ and AZURE_.
        - ``~/.ollama/id_ed25519``, and ``~/.docker/config.json`` (DOCKER_CONFIG).

        Raises SourceError for a variable that cannot be used. Files that cannot be read count as missing.
        """
        home = Path(environ["HOME"]) if environ.get("HOME") else None
        options = sorted(name for name in environ if _OPTION.fullmatch(name) and environ[name])[:MAX_OPTIONS]
        docker = Path(environ["DOCKER_CONFIG"]) if environ.get("DOCKER_CONFIG") else home and home / ".docker"
        return cls(
            ollama_key=_existing(home and home / ".ollama/id_ed25519", MAX_VALUE),
            docker_config=_existing(docker and docker / "config.json", MAX_DOCKER_CONFIG),
            options={name: _checked(name, environ[name]) for name in options},
            host_tokens=_host_tokens(environ, home),
        )


NO_CREDENTIALS = Credentials()

_NAMES: Final = frozenset({*_TOKEN_KEYS, *_KEY_KEYS, _DOCKER_KEY, "username", "password"})


def _host_tokens(environ: Mapping[str, str], home: Path | None) -> dict[str, str]:
    hub = _checked("HF_TOKEN", environ.get("HF_TOKEN", "")) or _saved_hub_token(environ, home)
    modelscope = _checked("MODELSCOPE_API_TOKEN", environ.get("MODELSCOPE_API_TOKEN", ""))
    hosts = (*_HF_HOSTS, *_endpoint_host(environ, "HF_ENDPOINT"))
    tokens = dict.fromkeys(hosts, hub) if hub else {}
    modelscope_hosts = (*_MODELSCOPE_HOSTS, *_endpoint_host(environ, "MODELSCOPE_ENDPOINT"))
    return tokens | (dict.fromkeys(modelscope_hosts, modelscope) if modelscope else {})


def _endpoint_host(environ: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Return the host of a mirror. An address that is no URL has none; ``hub_endpoints`` reports it."""
    try:
        host = urlsplit(str_setting(environ, name)).hostname
    except ValueError:
        return ()
    return (host,) if host else ()


def _saved_hub_token(environ: Mapping[str, str], home: Path | None) -> str:
    if environ.get("HF_TOKEN_PATH"):
        path: Path | None = Path(environ["HF_TOKEN_PATH"])
    elif environ.get("HF_HOME"):
        path = Path(environ["HF_HOME"]) / "token"
    else:
        path = home and home / ".cache/huggingface/token"
    return _checked("the saved token of Hugging Face", _existing(path, MAX_VALUE))


def _existing(path: Path | None, limit: int) -> str:
    """Return the content of a file, nothing if it does not exist, cannot be read or is larger than ``limit`` bytes."""
    try:
        return _content(path, limit) if path is not None else ""
    except (OSError, ValueError):
        return ""


def _secret_value(path: Path) -> str:
    """Return the value of a key of a Secret. Raises SourceError."""
    name = path.name
    limit = MAX_DOCKER_CONFIG if name == _DOCKER_KEY else MAX_VALUE
    try:
        text = _content(path, limit)
    except OSError as error:
        raise SourceError(f"the key {name!r} of the Secret cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise SourceError(f"the key {name!r} of the Secret {error}") from None
    return text if name == _DOCKER_KEY or name in _KEY_KEYS else _checked(f"the key {name!r} of the Secret", text)


def _content(path: Path, limit: int) -> str:
    """Return the text of a file. Raises OSError, and ValueError with a predicate."""
    with path.open("rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"has more than {limit} bytes")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None


def _checked(name: str, value: str) -> str:
    """Return a value without white space around it: files and ``echo`` add a line break. Raises SourceError."""
    value = value.strip()
    if len(value) > MAX_VALUE:
        raise SourceError(f"{name} has more than {MAX_VALUE} characters")
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in value) and not value.startswith("{"):
        raise SourceError(f"{name} contains line breaks or other control characters; store the bare value")
    return value


def _first(held: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((held[name] for name in names if held.get(name)), "")
