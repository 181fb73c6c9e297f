"""NO_PROXY: names, addresses, networks and ports, and properties of networks."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.base.errors import InvalidSetting
from corral_server.pull.http.no_proxy import no_proxy, parse_no_proxy

ADDRESSES = st.ip_addresses()
LABELS = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(".".join)


@pytest.mark.parametrize(
    ("entries", "host", "excepted"),
    [
        ("", "example.com", False),
        ("*", "example.com", True),
        ("*", "10.1.2.3", True),
        ("example.com", "example.com", True),
        ("example.com", "a.b.example.com", True),
        ("example.com", "notexample.com", False),
        ("example.com", "example.com.evil.org", False),
        ("EXAMPLE.com", "Example.COM", True),
        ("example.com.", "example.com", True),
        ("example.com", "example.com.", True),
        (".example.com", "a.example.com", True),
        (".example.com", "example.com", False),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        (".svc,.cluster.local", "corral.models.svc", True),
        (".svc,.cluster.local", "corral.models.svc.cluster.local", True),
        (".svc,.cluster.local", "svc", False),
        ("a, b  c,,d", "c", True),
        ("a, b  c,,d", "e", False),
        (",", "", False),
        (".", "example.com", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.33", False),
        (".3", "10.1.2.3", False),
        ("3", "10.1.2.3", False),
        ("10.0.0.0/8", "10.255.1.2", True),
        ("10.9.9.9/8", "10.255.1.2", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8", "name.in.10", False),
        ("0.0.0.0/0", "8.8.8.8", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("fd00::/8", "fd12::1", True),
        ("fd00::/8", "[fd12::1]", True),
        ("fd00::/8", "fe80::1", False),
        ("FD00::1", "fd00:0::1", True),
        ("[fd00::1]", "fd00::1", True),
        ("10.0.0.0/8", "::ffff:10.1.1.1", True),
        ("::ffff:10.0.0.0/104", "10.1.1.1", True),
        ("", "localhost", True),
        ("", "a.localhost", True),
        ("", "127.0.0.2", True),
        ("", "::1", True),
    ],
)
def test_hosts(entries: str, host: str, excepted: bool) -> None:
    assert parse_no_proxy(entries).matches(host, 443) is excepted


@pytest.mark.parametrize(
    ("entry", "host", "port", "excepted"),
    [
        ("example.com:8443", "example.com", 8443, True),
        ("example.com:8443", "a.example.com", 8443, True),
        ("example.com:8443", "example.com", 443, False),
        ("10.1.2.3:5000", "10.1.2.3", 5000, True),
        ("10.1.2.3:5000", "10.1.2.3", 443, False),
        ("[fd00::1]:5000", "fd00::1", 5000, True),
        ("[fd00::1]:5000", "fd00::1", 443, False),
        ("fd00::1", "fd00::1", 443, True),
        ("fd00::1:5000", "fd00::1:5000", 443, True),
    ],
)
def test_ports(entry: str, host: str, port: int, excepted: bool) -> None:
    assert parse_no_proxy(entry).matches(host, port) is excepted


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "example.com/8", "http://example.com/", "a:0", "a:99999", "a:b"])
def test_an_entry_that_means_nothing_is_an_error(entry: str) -> None:
    with pytest.raises(InvalidSetting, match="NO_PROXY"):
        parse_no_proxy(entry)


@given(ADDRESSES, st.integers(0, 128), ADDRESSES)
def test_a_network_matches_the_addresses_that_share_its_prefix(
    base: ipaddress.IPv4Address | ipaddress.IPv6Address,
    length: int,
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    length = min(length, base.max_prefixlen)
    rules = no_proxy([f"{base}/{length}"])
    if _mapped(base) and length < 96:
        return  # such a network is one of IPv6, and the address is one of IPv4, as in Go
    assert rules.matches(str(base), 443)
    if base.version == address.version and not address.is_loopback and not _mapped(base) and not _mapped(address):
        shift = base.max_prefixlen - length
        assert rules.matches(str(address), 443) == (int(base) >> shift == int(address) >> shift)


def _mapped(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None


@given(ADDRESSES, st.integers(1, 65535))
def test_an_address_matches_itself_in_every_spelling(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int
) -> None:
    rules = no_proxy([str(address).upper()])
    assert rules.matches(address.exploded, port)
    assert rules.matches(address.compressed, port)


@given(NAMES, NAMES)
def test_a_name_matches_itself_and_its_subdomains_only(name: str, other: str) -> None:
    rules = no_proxy([name])
    assert rules.matches(name, 443)
    assert rules.matches(f"{other}.{name}", 443)
    assert rules.matches(other, 443) == (other == name or other.endswith("." + name) or other == "localhost")


@given(st.text(max_size=40))
def test_no_text_crashes(text: str) -> None:
    try:
        rules = parse_no_proxy(text)
    except InvalidSetting:
        return
    rules.matches("example.com", 443)
    rules.matches("10.0.0.1", 443)
