"""Certificate authorities: those of the system and the files of the CA bundle, reloaded when a file changes.

- Files are added to the system's authorities; they replace none. OpenSSL reads SSL_CERT_FILE and SSL_CERT_DIR.
- A file that cannot be read when it changes, half written for example, leaves the previous authorities in use.
"""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path

from corral_core.base.errors import InvalidSetting
from corral_server.pull.http.settings import CA_SETTING
from corral_server.system.file_changes import FileChanges

log = logging.getLogger(__name__)


class Authorities:
    """Holds the current SSL context; thread-safe. The constructor raises InvalidSetting."""

    def __init__(self, bundle: Sequence[Path]) -> None:
        self._bundle = tuple(bundle)
        self._lock = threading.Lock()
        for path in self._bundle:
            if problem := _problem(path):
                raise InvalidSetting(f"{CA_SETTING}: {path} cannot be used: {problem}")
        self._changes = FileChanges([*self._bundle, *_system_file()])
        self._context = _load(self._bundle)

    def context(self) -> ssl.SSLContext:
        """Return the context to use; another object than before if the authorities have changed."""
        with self._lock:
            try:
                if self._changes.changed():
                    self._context = _load(self._bundle)
                    log.info("reloaded the certificate authorities")
            except OSError as error:  # ssl.SSLError is one
                log.warning("cannot reload the certificate authorities, the previous ones stay in use: %s", error)
            return self._context


def _system_file() -> tuple[Path, ...]:
    found = ssl.get_default_verify_paths().cafile
    return (Path(found),) if found else ()


def _load(bundle: Sequence[Path]) -> ssl.SSLContext:
    """Raises OSError."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    for path in bundle:
        context.load_verify_locations(path)
    return context


def _problem(path: Path) -> str:
    """Return why a file cannot be used, or nothing."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except ssl.SSLError:
        return "it contains no certificate in PEM form"
    except OSError as error:
        return error.strerror or str(error)
    return ""
