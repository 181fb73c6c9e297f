"""TLS towards clients by two files, read again when they change: as a Secret is renewed, without a restart.

The files are looked at when a client comes, at most once in ``INTERVAL``. A pair that cannot be used - half written, or
of a key that is not the certificate's - leaves the one before in use. Connections that stand keep what they have.
A client that speaks plain HTTP is told so in plain HTTP, and no word of it is taken for a request.
"""

from __future__ import annotations

import logging
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from corral_core.errors import InvalidSetting
from corral_server.gateway.front.refusal import refusal

log = logging.getLogger(__name__)

INTERVAL = 1.0
_SPEAK_TLS = "this port speaks HTTPS: plain HTTP was sent to it"
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


class _Greeting(ssl.SSLObject):
    """One connection's TLS. ``incoming`` and ``outgoing`` are the bytes from and for its client, below TLS."""

    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    _told = False

    def do_handshake(self) -> None:
        """Once a client was told, it is waited for: it closes, or the time for a handshake is up."""
        try:
            if not self._told:
                super().do_handshake()
                return
        except ssl.SSLError as error:
            if error.reason != "HTTP_REQUEST":
                raise
            self._told = True
            self.outgoing.write(refusal(400, _SPEAK_TLS, target=b"", prefix=""))
        self.incoming.read()  # thrown away
        raise ssl.SSLWantReadError


class _Context(ssl.SSLContext):
    """Its connections can answer plain HTTP."""

    sslobject_class = _Greeting

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        assert isinstance(made, _Greeting)
        made.incoming, made.outgoing = incoming, outgoing
        return made


def _load(files: TlsFiles) -> ssl.SSLContext:
    """Raises OSError."""
    context = _Context(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(files.certificate, files.key, password=_no_password)
    return context


def _no_password() -> str:
    """Instead of asking at the terminal."""
    return ""
