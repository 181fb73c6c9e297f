"""Requests through real forward proxies: tinyproxy, and squid with a CA of its own that opens TLS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from corral_core.base.errors import SourceError
from corral_core.sources.snapshot import snapshot_file
from corral_server.pull.credentials import NO_CREDENTIALS
from corral_server.pull.download.downloader import Downloader
from corral_server.pull.download.options import DownloadOptions
from corral_server.pull.errors import TransientError
from corral_server.pull.http.client import HttpClient
from corral_server.pull.http.settings import NetworkSettings, network_settings
from corral_server.pull.network import NetworkTransports
from corral_server.pull.puller import Puller
from corral_server.pull.remote_files import HttpLocation
from corral_server.pull.store import WeightsStore
from tests.pull.http.test_ranges import read_all
from tests.support.authority import Authority
from tests.support.ollama_registry import padded_weights
from tests.support.ports import free_port
from tests.support.tiny_model import write_tiny_model
from tests.support.waiting import until
from tests.support.web_servers import NAMES, nginx, squid, tinyproxy

pytestmark = pytest.mark.process

CONTENT = bytes(range(256)) * 4000
HOST = NAMES[0]
MODEL_SIZE = 8 * 2**20


def resolve(host: str, port: int) -> Sequence[str]:
    """Return the loopback address for the names of the test servers."""
    assert host in NAMES, host
    return ["127.0.0.1"]


@dataclass(frozen=True)
class Site:
    """HTTPS server ``weights.test`` with a certificate of its authority, and an intercepting proxy with another one."""

    port: int
    authority: Authority
    squid: int
    tls_proxy: int
    interceptor: Authority
    squid_log: Path
    pages: Path

    def url(self, path: str = "/weights.gguf", *, host: str = HOST) -> str:
        return f"https://{host}:{self.port}{path}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    authority, interceptor = Authority(folder, "server-ca"), Authority(folder, "company-ca")
    pages = (
        "location /moved { return 302 https://other.test:$server_port/weights.gguf; }"
        "location /download { return 302 https://cdn.test:$server_port/tiny.gguf?sig=valid; }"
        "location /metadata { return 302 https://169.254.169.254/latest/; }"
        "location /inside { return 302 https://127.0.0.1:$server_port/weights.gguf; }"
        "location /shared { return 302 https://10.255.255.1/weights.gguf; }"
    )
    with (
        nginx(folder / "nginx", pages, tls=authority.issue(*NAMES)) as port,
        squid(signer=interceptor.pair, trusted=authority.certificate, tls=authority.issue("localhost")) as intercepting,
    ):
        (folder / "nginx/weights.gguf").write_bytes(CONTENT)
        padded = padded_weights(write_tiny_model(folder), MODEL_SIZE)
        (folder / "nginx/tiny.gguf").write_bytes(padded)
        yield Site(
            port,
            authority,
            intercepting.port,
            intercepting.tls_port,
            interceptor,
            intercepting.access_log,
            folder / "nginx",
        )


def client(**environ: object) -> HttpClient:
    """Return a client with the settings of these environment variables, which does not wait between attempts."""
    settings = network_settings({name: str(value) for name, value in environ.items()})
    return HttpClient(settings, wait=lambda _: None, resolve=resolve)


def test_an_intercepting_proxy_works_with_its_authority_added(site: Site) -> None:
    http = client(HTTPS_PROXY=f"http://127.0.0.1:{site.squid}", CORRAL_CA_BUNDLE=site.interceptor.certificate)
    stream = http.open(HttpLocation(site.url()), start=1000, end=500_000)
    assert read_all(stream, size=65536) == CONTENT[1000:500_000]
    assert stream.total == len(CONTENT)
    assert f"CONNECT {HOST}:{site.port}" in site.squid_log.read_text()
    http.close()


@pytest.mark.parametrize("path", ["/tiny.gguf", "/download/tiny.gguf"])
def test_a_whole_pull_through_the_intercepting_proxy(site: Site, tmp_path: Path, path: str) -> None:
    """The names of the servers are known to the proxy alone, so there is no other way to them."""
    network = network_settings(
        {"HTTPS_PROXY": f"http://127.0.0.1:{site.squid}", "CORRAL_CA_BUNDLE": str(site.interceptor.certificate)}
    )
    store = WeightsStore(tmp_path / "store")
    transports = NetworkTransports(network, NO_CREDENTIALS)
    options = DownloadOptions(first_part=2**20, min_part=2**20, max_part=2**20)
    puller = Puller(store, transports, Downloader(store, transports, options=options))
    metadata = puller.inspect(puller.resolve(site.url(path)))
    snapshot = puller.pull(site.url(path))
    assert metadata is not None
    assert (metadata.family, metadata.size) == ("llama", MODEL_SIZE)
    pulled = snapshot_file(store.root, snapshot.id, snapshot.files[0].name)
    assert pulled.read_bytes() == (site.pages / "tiny.gguf").read_bytes()


def test_tls_to_the_proxy_itself(site: Site) -> None:
    http = client(HTTPS_PROXY=f"https://localhost:{site.tls_proxy}", CORRAL_CA_BUNDLE=site.authority.certificate)
    for _ in range(2):
        assert read_all(http.open(HttpLocation(site.url()), start=1000), size=65536) == CONTENT[1000:]
    http.close()
    http = client(HTTPS_PROXY=f"https://localhost:{site.tls_proxy}")
    with pytest.raises(SourceError, match=rf"certificate of the proxy https://localhost:{site.tls_proxy} is not trust"):
        http.request("GET", site.url())
    http.close()


def test_a_proxy_without_tls_that_is_named_with_https(site: Site) -> None:
    http = client(HTTPS_PROXY=f"https://localhost:{site.squid}")
    with pytest.raises(SourceError, match="write HTTPS_PROXY with http://"):
        http.request("GET", site.url())
    http.close()


def test_the_authorities_of_ssl_cert_file_replace_the_system_ones(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(site.authority.certificate))
    http = client()
    assert http.request("HEAD", site.url()).status == 200
    http.close()


def test_a_bundle_is_added_to_the_authorities_of_the_system(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(site.authority.certificate))
    http = client(HTTPS_PROXY=f"http://127.0.0.1:{site.squid}", CORRAL_CA_BUNDLE=site.interceptor.certificate)
    assert http.request("HEAD", site.url()).status == 200
    http.close()
    http = client(CORRAL_CA_BUNDLE=site.interceptor.certificate)
    assert http.request("HEAD", site.url()).status == 200
    http.close()


def test_an_intercepting_proxy_without_its_authority_names_the_setting(site: Site) -> None:
    http = client(HTTPS_PROXY=f"http://127.0.0.1:{site.squid}", CORRAL_CA_BUNDLE=site.authority.certificate)
    with pytest.raises(SourceError, match=r"not trusted: .*add the PEM file of that CA to CORRAL_CA_BUNDLE"):
        http.request("GET", site.url())
    http.close()


def test_the_authority_can_be_added_while_the_client_runs(site: Site, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(site.authority.certificate.read_bytes())
    http = client(HTTPS_PROXY=f"http://127.0.0.1:{site.squid}", CORRAL_CA_BUNDLE=bundle)
    with pytest.raises(SourceError, match="not trusted"):
        http.request("GET", site.url())
    bundle.write_bytes(site.authority.certificate.read_bytes() + site.interceptor.certificate.read_bytes())

    def trusted() -> bool:
        try:
            return http.request("HEAD", site.url()).status == 200
        except SourceError:
            return False

    until(trusted, what="the new authority being trusted", interval=0.1)
    http.close()


@pytest.mark.parametrize("exception", [HOST, ".test", f"{HOST}:PORT", "*", "10.0.0.0/8, *.test"])
def test_an_excepted_host_is_reached_directly(site: Site, exception: str) -> None:
    http = client(
        HTTPS_PROXY=f"http://127.0.0.1:{free_port()}",
        NO_PROXY=exception.replace("PORT", str(site.port)),
        CORRAL_CA_BUNDLE=site.authority.certificate,
    )
    assert http.request("HEAD", site.url()).status == 200
    http.close()


def test_a_proxy_that_is_down_is_named(site: Site) -> None:
    port = free_port()
    http = client(HTTPS_PROXY=f"http://name:geheim@127.0.0.1:{port}")
    with pytest.raises(TransientError, match=rf"the proxy http://127\.0\.0\.1:{port} cannot be reached: ") as raised:
        http.request("GET", site.url())
    assert "Connection refused" in str(raised.value)
    assert "HTTPS_PROXY" in str(raised.value)
    assert "geheim" not in str(raised.value)
    http.close()


@pytest.fixture
def guarded(site: Site, tmp_path: Path) -> Iterator[int]:
    """Yield the port of a tinyproxy that asks for credentials and allows the site's port alone."""
    with tinyproxy(tmp_path / "tinyproxy", ports=[site.port], login=("name", "geheim")) as port:
        yield port


def test_the_credentials_of_the_proxy_are_sent_to_it(site: Site, guarded: int) -> None:
    http = client(https_proxy=f"http://name:g%65heim@127.0.0.1:{guarded}", CORRAL_CA_BUNDLE=site.authority.certificate)
    assert http.request("GET", site.url()).body == CONTENT
    http.close()


@pytest.mark.parametrize(
    ("login", "text"), [("", "requires credentials"), ("name:falsch@", "refuses the user or password")]
)
def test_missing_and_wrong_credentials_of_the_proxy(site: Site, guarded: int, login: str, text: str) -> None:
    http = client(HTTPS_PROXY=f"http://{login}127.0.0.1:{guarded}")
    with pytest.raises(SourceError, match=text) as raised:
        http.request("GET", site.url())
    assert "falsch" not in repr(raised.value)
    http.close()


def test_a_host_that_the_proxy_refuses(site: Site, guarded: int) -> None:
    http = client(HTTPS_PROXY=f"http://name:g%65heim@127.0.0.1:{guarded}")
    with pytest.raises(SourceError, match=rf"refuses connections to {HOST} \(status 403\)"):
        http.request("GET", f"https://{HOST}/weights.gguf")
    http.close()


def test_a_redirect_to_another_host_goes_through_the_proxy(site: Site, guarded: int) -> None:
    http = client(HTTPS_PROXY=f"http://name:g%65heim@127.0.0.1:{guarded}", CORRAL_CA_BUNDLE=site.authority.certificate)
    found = http.request("HEAD", site.url("/moved"), headers={"Authorization": "Bearer x"})
    assert (found.status, found.url) == (200, site.url(host="other.test"))
    http.close()


@pytest.mark.parametrize(
    ("path", "text"),
    [("/metadata", "never connected to"), ("/inside", "private address 127.0.0.1"), ("/shared", "CORRAL_PRIVATE_RED")],
)
def test_a_host_behind_the_proxy_does_not_redirect_inside(site: Site, path: str, text: str) -> None:
    http = client(HTTPS_PROXY=f"http://127.0.0.1:{site.squid}", CORRAL_CA_BUNDLE=site.interceptor.certificate)
    with pytest.raises(SourceError, match=text):
        http.open(HttpLocation(site.url(path)))
    http.close()


def test_a_host_behind_the_proxy_does_not_redirect_to_a_direct_private_host(site: Site) -> None:
    """``other.test`` resolves to a private address, which is known only when it is connected to."""
    environ = {
        "HTTPS_PROXY": f"http://127.0.0.1:{site.squid}",
        "NO_PROXY": "other.test",
        "CORRAL_CA_BUNDLE": f"{site.interceptor.certificate},{site.authority.certificate}",
    }
    http = client(**environ)
    with pytest.raises(SourceError, match=r"private address other\.test \(127\.0\.0\.1\)"):
        http.request("GET", site.url("/moved"))
    http.close()
    http = client(**environ, CORRAL_PRIVATE_REDIRECTS="1")
    assert http.request("HEAD", site.url("/moved")).status == 200
    http.close()


def test_a_private_host_redirects_to_a_private_host(site: Site) -> None:
    http = client(CORRAL_CA_BUNDLE=site.authority.certificate)
    assert http.request("HEAD", site.url("/moved")).status == 200
    http.close()


def test_a_certificate_for_another_host_is_refused(site: Site) -> None:
    settings = NetworkSettings(ca_bundle=(site.authority.certificate,))
    http = HttpClient(settings, resolve=lambda host, port: ["127.0.0.1"])
    with pytest.raises(SourceError, match=r"Hostname mismatch") as raised:
        http.request("GET", site.url(host="wrong.test"))
    assert "CORRAL_CA_BUNDLE" not in str(raised.value)
    http.close()


def test_an_expired_certificate_is_refused(site: Site, tmp_path: Path) -> None:
    with nginx(tmp_path / "nginx", "", tls=site.authority.issue(HOST, days=-1)) as port:
        http = client(CORRAL_CA_BUNDLE=site.authority.certificate)
        with pytest.raises(SourceError, match=r"not trusted: certificate has expired"):
            http.request("GET", f"https://{HOST}:{port}/")
        http.close()
