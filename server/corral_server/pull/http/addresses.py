"""Classes of IP addresses, for the check of what a server redirects to.

- *Forbidden* addresses are never connected to: link-local addresses and others under which clouds serve the
  credentials of a machine, unspecified, multicast and reserved ones.
- *Private* addresses are all others that are not global: loopback, RFC 1918, unique local, shared (RFC 6598).
- An IPv6 address that contains an IPv4 address (mapped, compatible, 6to4, NAT64) has the class of the IPv4 address.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import Final

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA: Final = frozenset(
    ipaddress.ip_address(address)
    for address in (
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure's wire server
        "192.0.0.192",  # Oracle Cloud
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google Cloud
    )
)
_METADATA_NAMES: Final = frozenset({"metadata", "metadata.google.internal", "metadata.goog", "instance-data"})
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_LOW_32_BITS: Final = 0xFFFFFFFF


def literal_address(host: str) -> IPAddress | None:
    """Return the address that a host is written as, None for a name.

    The forms of ``inet_aton`` count too (``127.1``, ``0x7f000001``, ``2130706433``): resolvers accept them.
    """
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host)) if host[:1].isdigit() else None
    except OSError:
        return None


def is_forbidden(address: IPAddress) -> bool:
    """Return whether no connection to the address is allowed."""
    inner = _embedded(address)
    if inner in _METADATA or inner.is_link_local or inner.is_unspecified or inner.is_multicast:
        return True
    return inner.is_reserved and not inner.is_loopback


def is_private(address: IPAddress) -> bool:
    """Return whether the address is reachable from within a machine, a cluster or an organization only."""
    return not _embedded(address).is_global


def is_forbidden_name(host: str) -> bool:
    """Return whether the name is that of a metadata server, which a proxy would resolve."""
    return host in _METADATA_NAMES


def is_loopback_name(host: str) -> bool:
    """Return whether the name means the machine itself (RFC 6761)."""
    return host == "localhost" or host.endswith(".localhost")


def _embedded(address: IPAddress) -> IPAddress:
    """Return the IPv4 address in an IPv6 address, or the address itself."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if (mapped := address.ipv4_mapped) is not None:
        return mapped
    if (sixtofour := address.sixtofour) is not None:
        return sixtofour
    compatible = int(address) <= _LOW_32_BITS and int(address) > 1
    if compatible or address in _NAT64:
        return ipaddress.IPv4Address(int(address) & _LOW_32_BITS)
    return address
