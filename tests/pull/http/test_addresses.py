"""Classes of addresses."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_server.pull.http.addresses import is_forbidden, is_private, literal_address


@pytest.mark.parametrize(
    "text",
    [
        "169.254.0.1",
        "169.254.169.254",
        "169.254.255.255",
        "fe80::1",
        "febf::1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "240.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::169.254.169.254",
        "2002:a9fe:a9fe::",
        "::169.254.169.254",
        "100.100.100.200",
        "fd00:ec2::254",
    ],
)
def test_forbidden(text: str) -> None:
    assert is_forbidden(ipaddress.ip_address(text))


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "::1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd00::1", "::ffff:10.0.0.1"]
)
def test_private_and_not_forbidden(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert is_private(address)
    assert not is_forbidden(address)


@pytest.mark.parametrize("text", ["8.8.8.8", "2606:4700::1111", "64:ff9b::8.8.8.8", "172.15.0.1", "172.32.0.1"])
def test_public(text: str) -> None:
    address = ipaddress.ip_address(text)
    assert not is_private(address)
    assert not is_forbidden(address)


@given(st.ip_addresses(v=4))
def test_an_address_in_ipv6_has_the_class_of_the_ipv4_address(address: ipaddress.IPv4Address) -> None:
    for prefix in ("::ffff:", "64:ff9b::"):
        inside = ipaddress.ip_address(f"{prefix}{address}")
        assert is_forbidden(inside) == is_forbidden(address)
        assert is_private(inside) == is_private(address)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("[::1]", "::1"),
        ("127.1", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("10.1.2.3.example.com", None),
        ("1e100.net", None),
        ("example.com", None),
        ("", None),
    ],
)
def test_hosts_that_are_addresses(host: str, address: str | None) -> None:
    assert literal_address(host) == (ipaddress.ip_address(address) if address else None)
