"""TLS towards clients by two files, read again when they change: as a Secret is renewed, without a restart.

The files are looked at when a client comes, at most once in ``INTERVAL``. A pair that cannot be used - half written, or
of a key that is not the certificate's - leaves the one before in use. Connections that stand keep what they have.
"""

from __future__ import annotations

import logging
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from corral_core.errors import InvalidSetting

log = logging.getLogger(__name__)

INTERVAL = 1.0
_Seen = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the certificate with those that lead to its authority, and its key."""

    certificate: Path
    key: Path


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """What listens with it shows every new client the newest certificate. Raises InvalidSetting."""
    return _Renewed(files).context


class _Renewed:
    """``context`` listens; each handshake is told to go on with the newest one."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._looked_at = time.monotonic()
        try:
            self._seen = self._look()
            self._newest = self.context = _load(files)
        except OSError as error:  # ssl.SSLError is one
            names = f"CORRAL_TLS_CERT={str(files.certificate)!r} and CORRAL_TLS_KEY={str(files.key)!r}"
            raise InvalidSetting(f"{names} cannot be used: {error}") from error
        self.context.sni_callback = self._greeted

    def _greeted(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """OpenSSL calls it for every handshake, whether the client names a server or not."""
        now = time.monotonic()
        if now - self._looked_at >= INTERVAL:
            self._looked_at = now
            self._renew()
        connection.context = self._newest

    def _renew(self) -> None:
        try:
            seen = self._look()
            if seen == self._seen:
                return
            self._seen = seen
            self._newest = _load(self._files)
        except OSError as error:
            log.error("the new TLS certificate cannot be used, the old one stays: %s", error)
        else:
            log.info("the TLS certificate was renewed")

    def _look(self) -> _Seen:
        """Raises OSError."""
        states = [path.stat() for path in (self._files.certificate, self._files.key)]
        return tuple((state.st_ino, state.st_mtime_ns, state.st_size) for state in states)


def _load(files: TlsFiles) -> ssl.SSLContext:
    """Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(files.certificate, files.key, password=_no_password)
    return context


def _no_password() -> str:
    """Instead of asking at the terminal."""
    return ""
