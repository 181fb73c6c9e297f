"""Network settings from environment variables."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path

import pytest

from corral_core.base.errors import InvalidSetting
from corral_server.pull.http.client import HttpClient
from corral_server.pull.http.settings import NetworkSettings, network_settings, parse_proxy
from tests.support.authority import Authority

LOGIN = "user:geheim@"


def test_nothing_is_set_by_default() -> None:
    assert network_settings({}) == NetworkSettings()


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({"HTTPS_PROXY": "http://a:1"}, "http://a:1"),
        ({"https_proxy": "http://b:2"}, "http://b:2"),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:2"}, "http://a:1"),
        ({"HTTPS_PROXY": "", "https_proxy": "http://b:2"}, "http://b:2"),
        ({"HTTPS_PROXY": "a:1"}, "http://a:1"),
        ({"HTTPS_PROXY": "https://a"}, "https://a:443"),
        ({"HTTPS_PROXY": "http://[fd00::1]:3128/"}, "http://[fd00::1]:3128"),
    ],
)
def test_the_proxy(environ: dict[str, str], url: str) -> None:
    proxy = network_settings(environ).https_proxy
    assert proxy is not None
    assert proxy.url == url


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_other_proxies_are_not_read(name: str) -> None:
    assert network_settings({name: "http://a:1"}) == NetworkSettings()


def test_the_credentials_of_the_proxy_are_decoded_and_not_shown() -> None:
    proxy = parse_proxy("http://user%40corp:ge%3Aheim@a:1")
    assert b64decode(proxy.authorization.removeprefix("Basic ")) == b"user@corp:ge:heim"
    assert proxy.url == "http://a:1"
    assert "heim" not in repr(NetworkSettings(https_proxy=proxy))
    assert proxy.authorization not in repr(proxy)


@pytest.mark.parametrize(
    "text",
    [
        f"socks5://{LOGIN}a:1",
        "http://",
        f"http://{LOGIN}a:x",
        f"http://{LOGIN}a/path",
        "http://ge heim",
    ],
)
def test_a_proxy_that_is_not_valid_is_an_error_without_credentials(text: str) -> None:
    with pytest.raises(InvalidSetting, match="HTTPS_PROXY") as raised:
        parse_proxy(text)
    assert "geheim" not in str(raised.value)


def test_the_proxy_is_for_https_only_and_not_for_excepted_hosts() -> None:
    settings = network_settings({"HTTPS_PROXY": "http://a:1", "no_proxy": ".svc,10.0.0.0/8"})
    assert settings.proxy_for("https", "example.com", 443) is settings.https_proxy is not None
    for scheme, host in (("http", "example.com"), ("https", "x.svc"), ("https", "10.1.1.1"), ("https", "localhost")):
        assert settings.proxy_for(scheme, host, 443) is None


@pytest.mark.parametrize(
    ("entry", "host", "port", "plain"),
    [
        ("registry.svc", "registry.svc", 80, True),
        ("Registry.svc", "registry.svc", 5000, True),
        ("registry.svc", "a.registry.svc", 80, False),
        ("registry.svc:5000", "registry.svc", 5000, True),
        ("registry.svc:5000", "registry.svc", 80, False),
        ("[fd00::1]:5000", "fd00::1", 5000, True),
    ],
)
def test_hosts_without_tls(entry: str, host: str, port: int, plain: bool) -> None:
    assert network_settings({"CORRAL_PLAIN_HTTP_HOSTS": entry}).is_plain(host, port) is plain


@pytest.mark.parametrize("entry", ["http://a", "a/b", "*", "a b"])
def test_a_host_without_tls_that_is_not_valid(entry: str) -> None:
    with pytest.raises(InvalidSetting, match="CORRAL_PLAIN_HTTP_HOSTS"):
        network_settings({"CORRAL_PLAIN_HTTP_HOSTS": entry})


def test_a_bundle_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("no certificate")
    for name in ("missing.pem", "empty.pem"):
        with pytest.raises(InvalidSetting, match=rf"CORRAL_CA_BUNDLE: .*{name} cannot be used"):
            HttpClient(network_settings({"CORRAL_CA_BUNDLE": str(tmp_path / name)}))


def test_several_bundles_are_read(tmp_path: Path) -> None:
    names = [Authority(tmp_path, name).certificate for name in ("a", "b")]
    settings = network_settings({"CORRAL_CA_BUNDLE": ", ".join(map(str, names))})
    assert settings.ca_bundle == tuple(names)
    HttpClient(settings).close()
