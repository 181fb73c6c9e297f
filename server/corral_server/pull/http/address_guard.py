"""Check of the addresses that names resolve to, and the addresses that hosts were connected at.

A name is resolved once, here, and the connection is made to one of the returned addresses: a name server that answers
differently the next time gains nothing.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from corral_core.base.errors import SourceError
from corral_server.pull.http.addresses import is_forbidden, is_private
from corral_server.pull.http.settings import PRIVATE_SETTING

REMEMBERED: Final = 256
"""Hosts whose address is remembered."""

Resolve = Callable[[str, int], Sequence[str]]


def resolve_name(host: str, port: int) -> list[str]:
    """Return the addresses of a name by the system's resolver. Raises socket.gaierror."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class AddressGuard:
    """Chooses the addresses of a host that may be connected to; thread-safe.

    Without ``private`` private addresses are refused as well. ``peers`` is the guard that remembers the addresses.
    """

    def __init__(self, *, private: bool, peers: AddressGuard | None = None, resolve: Resolve = resolve_name) -> None:
        self._private = private
        self._peers = peers or self
        self._resolve = resolve
        self._lock = threading.Lock()
        self._connected: OrderedDict[tuple[str, int], str] = OrderedDict()

    def addresses(self, host: str, port: int) -> list[str]:
        """Return the allowed addresses of a host. Raises socket.gaierror, and SourceError if none is allowed."""
        found = [(text, ipaddress.ip_address(text.partition("%")[0])) for text in self._resolve(host, port)]
        reachable = [(text, address) for text, address in found if not is_forbidden(address)]
        if not reachable and found:
            raise SourceError(
                f"{host} has the address {found[0][1]}, which is never connected to: it is a link-local, metadata or "
                "reserved address"
            )
        allowed = [text for text, address in reachable if self._private or not is_private(address)]
        if not allowed and reachable:
            raise refused_redirect(host, str(reachable[0][1]))
        return allowed

    def connected(self, host: str, port: int, *, address: str) -> None:
        """Remember the address of a host."""
        peers = self._peers
        with peers._lock:
            peers._connected[host, port] = address
            peers._connected.move_to_end((host, port))
            while len(peers._connected) > REMEMBERED:
                peers._connected.popitem(last=False)

    def is_private(self, host: str, port: int) -> bool:
        """Return whether the host was last connected at a private address."""
        with self._lock:
            address = self._connected.get((host, port))
        return address is not None and is_private(ipaddress.ip_address(address.partition("%")[0]))


def refused_redirect(host: str, address: str = "") -> SourceError:
    """Return the error for a redirect, or a token server, from a public host at a private address."""
    where = f"{host} ({address})" if address and address != host else host
    return SourceError(
        f"a redirect from a public host to the private address {where}, or a token server there, is refused; "
        "if that is intended, set "
        f"{PRIVATE_SETTING}=1, or use the URL of {host} as the source"
    )
