"""API keys in use: those of the key file, and those that namespaces have in Secrets.

- A key is looked up by its SHA-256. The time of a lookup reveals nothing about a key: no one can choose a text whose
  SHA-256 is close to that of a key.
- The text of a namespace's key names the namespace, and the key is looked up only there. So a namespace that lists the
  SHA-256 of another one's key gets none of its requests.
- The key file is reloaded when it has changed, checked when a request arrives. If the new content is invalid, the
  previous keys stay in use.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from corral_core.base.errors import CorralError, InvalidSetting
from corral_core.contracts.api_keys import key_digest, key_namespace
from corral_server.gateway.auth.key_file import ApiKey, parse_keys
from corral_server.system.file_changes import FileChanges
from corral_server.wire.errors import ApiError

_STARTING = "the gateway is starting and does not know all API keys yet, please try again"
log = logging.getLogger(__name__)


class KeyStore:
    """``path`` is that of the key file, empty for none. ``on_change()`` is called after a change of the keys.

    ``listed`` is False until the keys of namespaces are known, ``invalid`` are the namespaces whose Secret is invalid.
    The constructor raises InvalidSetting if the key file is missing or invalid.
    """

    def __init__(self, path: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.on_change: Callable[[], None] = lambda: None
        self.listed = True
        self.invalid: set[str] = set()
        self._path = Path(path) if path else None
        self._file: Mapping[bytes, ApiKey] = {}
        self._namespaces: dict[str, Mapping[bytes, ApiKey]] = {}
        if self._path is not None:
            try:
                self._changes = FileChanges([self._path], clock=clock)
                self._file = _by_digest(parse_keys(self._path.read_text("utf-8")))
            except (OSError, UnicodeDecodeError, CorralError) as error:
                raise InvalidSetting(f"CORRAL_API_KEYS_FILE={path!r} cannot be used: {error}") from error

    def find(self, credential: bytes) -> ApiKey | None:
        """Return the key of a credential, which may have expired; None if it is unknown.

        Raises ApiError 503 if it may belong to a namespace whose keys are not known yet.
        """
        if self._path is not None:
            self._reload_if_changed(self._path)
        digest = key_digest(credential)
        key = self._file.get(digest)
        namespace = key_namespace(credential)
        if key is None and namespace:
            key = self._namespaces.get(namespace, _NONE).get(digest)
            if key is None and not self.listed:
                raise ApiError(503, _STARTING, retry_after=1)
        return key

    def all(self) -> list[ApiKey]:
        return [key for group in (self._file, *self._namespaces.values()) for key in group.values()]

    def set_namespace(self, namespace: str, keys: Iterable[ApiKey]) -> None:
        """Replace the keys of a namespace."""
        self.invalid.discard(namespace)
        self._namespaces[namespace] = _by_digest(keys)
        if not self._namespaces[namespace]:
            del self._namespaces[namespace]
        self.on_change()

    def mark_invalid(self, namespace: str) -> None:
        """Record that the Secret of the namespace is invalid; its previous keys stay in use."""
        self.invalid.add(namespace)

    def _reload_if_changed(self, path: Path) -> None:
        try:
            if not self._changes.changed():
                return
            self._file = _by_digest(parse_keys(path.read_text("utf-8")))
        except (OSError, UnicodeDecodeError, CorralError) as error:
            log.error("cannot reload the API keys, the previous ones stay in use: %s", error)
            return
        self.on_change()
        log.info("reloaded %d API keys", len(self._file))


def _by_digest(keys: Iterable[ApiKey]) -> Mapping[bytes, ApiKey]:
    return {key.digest: key for key in keys}


_NONE: Mapping[bytes, ApiKey] = {}
