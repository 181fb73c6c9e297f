"""Hosts that are reached without the proxy, by the rules of Go's ``golang.org/x/net/http/httpproxy``.

An entry of NO_PROXY is one of these, in any letter case; entries are separated by commas or spaces:

- ``*``: every host.
- ``example.com``: the host and its subdomains. ``.example.com`` and ``*.example.com``: its subdomains only.
- ``10.1.2.3``, ``fd00::1``, ``10.0.0.0/8``, ``fd00::/8``: addresses. They match hosts that are written as addresses;
  names are not resolved. No name entry matches an address.
- each of them but a network with a port, ``example.com:8443`` or ``[fd00::1]:8443``: that port only.

The loopback addresses and ``localhost`` are always reached without the proxy.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from corral_core.base.errors import InvalidSetting
from corral_server.pull.http.addresses import IPAddress, is_loopback_name

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class _Name:
    """``suffix`` begins with a dot. ``port`` None matches every port."""

    suffix: str
    itself: bool
    port: int | None

    def matches(self, host: str, port: int) -> bool:
        if self.port not in (None, port):
            return False
        return host.endswith(self.suffix) or (self.itself and host == self.suffix[1:])


@dataclass(frozen=True, slots=True)
class _Network:
    network: IPNetwork
    port: int | None

    def matches(self, address: IPAddress, port: int) -> bool:
        return self.port in (None, port) and address.version == self.network.version and address in self.network


@dataclass(frozen=True, slots=True)
class NoProxy:
    """Entries of NO_PROXY. ``everything`` is the entry ``*``."""

    everything: bool = False
    names: tuple[_Name, ...] = field(default=())
    networks: tuple[_Network, ...] = field(default=())

    def matches(self, host: str, port: int) -> bool:
        """Return whether the host is reached without the proxy."""
        host = host.lower().rstrip(".").strip("[]")
        address = _address(host)
        if self.everything or is_loopback_name(host) or (address is not None and address.is_loopback):
            return True
        if address is not None:
            return any(network.matches(address, port) for network in self.networks)
        return any(name.matches(host, port) for name in self.names)


def parse_no_proxy(text: str) -> NoProxy:
    """Parse a list of entries. Raises InvalidSetting for a network or a port that is not valid."""
    return no_proxy(re.split(r"[,\s]+", text))


def no_proxy(entries: Iterable[str]) -> NoProxy:
    """Build the rules from single entries. Raises InvalidSetting."""
    everything, names, networks = False, list[_Name](), list[_Network]()
    for entry in (item.strip().lower() for item in entries):
        if entry == "*":
            everything = True
        elif "/" in entry:
            networks.append(_Network(_network(entry), None))
        elif entry:
            host, port = _split_port(entry)
            address = _address(host.strip("[]"))
            if address is not None:
                networks.append(_Network(ipaddress.ip_network(address), port))
            elif host.strip(".*"):
                suffix = host.removeprefix("*").rstrip(".")
                names.append(_Name("." + suffix.removeprefix("."), not suffix.startswith("."), port))
    return NoProxy(everything, tuple(names), tuple(networks))


def _network(entry: str) -> IPNetwork:
    try:
        network = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        raise InvalidSetting(
            f"NO_PROXY: {entry!r} is not a network; write it like 10.0.0.0/8 or fd00::/8, and hosts without a scheme"
        ) from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def _split_port(entry: str) -> tuple[str, int | None]:
    """Split ``host:port``; an IPv6 address with a port is in brackets."""
    host, colon, port = entry.rpartition(":")
    if not colon or (":" in host and not host.endswith("]")) or _address(entry.strip("[]")) is not None:
        return entry, None
    if not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or not 0 < int(port) < 65536:
        raise InvalidSetting(f"NO_PROXY: {entry!r} has no valid port")
    return host, int(port)


def _address(host: str) -> IPAddress | None:
    """Return the address; an IPv4 address mapped into IPv6 is the IPv4 address, as in Go."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
