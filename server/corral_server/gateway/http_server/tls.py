"""TLS for clients, with a certificate and key that are reloaded when their files change, as those of a Secret do.

- The files are checked when a client connects. If the new pair is invalid (half written, or a key that does not match
  the certificate), the previous pair stays in use. Open connections keep their certificate.
- Connections in their handshake are counted: the server learns of a connection only when its handshake has ended.
- A plain HTTP request gets a plain HTTP error response, and is not parsed.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from corral_core.base.errors import InvalidSetting
from corral_server.gateway.http_server.error_response import encode_error
from corral_server.system.file_changes import FileChanges

log = logging.getLogger(__name__)

_PLAIN_HTTP = "this port requires HTTPS, but the request is plain HTTP"


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the certificate with its chain, and its key."""

    certificate: Path
    key: Path


class HandshakeCount:
    """``count`` is the number of connections in their handshake. A connection is closed when ``is_full`` at its start.

    A connection ends in many ways without a word to its TLS object, so the object's own end counts too. It belongs to
    no reference cycle before its handshake has ended.
    """

    def __init__(self) -> None:
        self.count = 0
        self.is_full: Callable[[], bool] = lambda: False


def server_context(files: TlsFiles, handshakes: HandshakeCount | None = None) -> ssl.SSLContext:
    """Return a context that presents the current certificate to each new client. Raises InvalidSetting."""
    context = _ReloadingContext(files).context
    context.handshakes = handshakes or HandshakeCount()
    return context


class _ReloadingContext:
    """``context`` accepts connections; each handshake continues with the ``_current`` context."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        try:
            self._changes = FileChanges([files.certificate, files.key])
            self._current = self.context = _load(files)
        except OSError as error:  # ssl.SSLError is one
            names = f"CORRAL_TLS_CERT={str(files.certificate)!r} and CORRAL_TLS_KEY={str(files.key)!r}"
            raise InvalidSetting(f"{names} cannot be used: {error}") from error
        self.context.sni_callback = self._on_handshake

    def _on_handshake(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """SNI callback; OpenSSL calls it for every handshake, with or without a server name."""
        self._reload_if_changed()
        connection.context = self._current

    def _reload_if_changed(self) -> None:
        try:
            if not self._changes.changed():
                return
            self._current = _load(self._files)
        except OSError as error:
            log.error("cannot reload the TLS certificate, the previous one stays in use: %s", error)
        else:
            log.info("reloaded the TLS certificate")


class _ClientTLS(ssl.SSLObject):
    """TLS of one connection. ``incoming`` and ``outgoing`` are the encrypted bytes from and to its client."""

    incoming: ssl.MemoryBIO
    outgoing: ssl.MemoryBIO
    _rejected = False
    _handshakes: HandshakeCount | None = None

    def count_in(self, handshakes: HandshakeCount) -> None:
        """Count this connection until its handshake has ended."""
        handshakes.count += 1
        self._handshakes = handshakes

    def _handshake_ended(self) -> None:
        if self._handshakes is not None:
            self._handshakes.count -= 1
            self._handshakes = None

    def __del__(self) -> None:
        self._handshake_ended()

    def do_handshake(self) -> None:
        """Reject plain HTTP; afterwards wait until the client closes or the handshake times out."""
        try:
            if not self._rejected:
                super().do_handshake()
                self._handshake_ended()
                return
        except ssl.SSLError as error:
            if error.reason != "HTTP_REQUEST":
                raise
            self._rejected = True
            self.outgoing.write(encode_error(400, _PLAIN_HTTP, target=b"", prefix=""))
        self.incoming.read()  # discarded
        raise ssl.SSLWantReadError


class _Context(ssl.SSLContext):
    """SSLContext whose connections can respond to plain HTTP."""

    sslobject_class = _ClientTLS
    handshakes: HandshakeCount

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        if self.handshakes.is_full():
            raise ssl.SSLError("too many connections")
        made = super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)
        assert isinstance(made, _ClientTLS)
        made.incoming, made.outgoing = incoming, outgoing
        made.count_in(self.handshakes)
        return made


def _load(files: TlsFiles) -> _Context:
    """Raises OSError."""
    context = _Context(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    context.load_cert_chain(files.certificate, files.key, password=_no_password)
    return context


def _no_password() -> str:
    """Prevent OpenSSL from prompting for a password."""
    return ""
