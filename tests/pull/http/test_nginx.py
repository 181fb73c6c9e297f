"""Ranges, redirects and errors of a real web server, with TLS and without."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from corral_core.base.errors import SourceError
from corral_server.pull.errors import FileChanged, LocationExpired, TransientError
from corral_server.pull.http.client import HttpClient
from corral_server.pull.http.settings import NetworkSettings
from corral_server.pull.remote_files import HttpLocation
from tests.pull.http.test_ranges import read_all
from tests.support.authority import Authority
from tests.support.web_servers import nginx

pytestmark = pytest.mark.process

CONTENT = bytes(range(256)) * 40_000
PAGES = """
    location = /moved { return 302 /weights.gguf?x=1; }
    location = /to-http { return 301 http://localhost:$server_port/weights.gguf; }
    location = /signed { if ($arg_sig != valid) { return 403; } rewrite ^ /weights.gguf last; }
    location = /private { if ($http_authorization != "Bearer valid") { return 401; } rewrite ^ /weights.gguf last; }
    location = /plain { max_ranges 0; alias ROOT/weights.gguf; }
    location = /zipped { gzip on; gzip_min_length 1; gzip_types *; alias ROOT/weights.gguf; }
    location = /busy { add_header Retry-After 3 always; return 503; }
"""


@dataclass(frozen=True)
class Site:
    http: HttpClient
    base: str
    folder: Path

    def at(self, path: str = "/weights.gguf", **headers: str) -> HttpLocation:
        return HttpLocation(self.base + path, headers)


@pytest.fixture(scope="module", params=["http", "https"])
def site(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    authority = Authority(folder, "ca")
    pair = authority.issue("localhost") if request.param == "https" else None
    with nginx(folder / "nginx", PAGES.replace("ROOT", f"{folder}/nginx"), tls=pair) as port:
        (folder / "nginx/weights.gguf").write_bytes(CONTENT)
        settings = NetworkSettings(plain_http_hosts=frozenset({"localhost"}), ca_bundle=(authority.certificate,))
        http = HttpClient(settings, wait=lambda _: None)
        yield Site(http, f"{request.param}://localhost:{port}", folder / "nginx")
        http.close()


def test_a_file_is_read_in_parallel_ranges(site: Site) -> None:
    def read(start: int) -> bytes:
        return read_all(site.http.open(site.at(), start=start, end=min(start + 300_000, len(CONTENT))), size=1 << 16)

    with ThreadPoolExecutor(8) as threads:
        assert b"".join(threads.map(read, range(0, len(CONTENT), 300_000))) == CONTENT


def test_a_range_names_size_and_version(site: Site) -> None:
    with_range, whole = site.http.open(site.at(), start=7, end=9), site.http.open(site.at())
    assert with_range.total == whole.total == len(CONTENT)
    assert with_range.version == whole.version == site.http.request("HEAD", site.at().url).headers["etag"]
    assert with_range.version.startswith('"')
    with_range.close()
    whole.close()


def test_a_redirect_is_followed_with_the_range(site: Site) -> None:
    assert read_all(site.http.open(site.at("/moved"), start=10, end=20)) == CONTENT[10:20]


def test_a_server_that_ignores_ranges(site: Site) -> None:
    stream = site.http.open(site.at("/plain"), start=10, end=20)
    assert (stream.start, stream.total) == (0, len(CONTENT))
    assert read_all(stream, size=1 << 20) == CONTENT


def test_no_compression_is_asked_for(site: Site) -> None:
    stream = site.http.open(site.at("/zipped"))
    assert stream.total == len(CONTENT)
    stream.close()


def test_ranges_beyond_the_end(site: Site) -> None:
    with pytest.raises(FileChanged, match=f"it has {len(CONTENT)} bytes"):
        site.http.open(site.at(), start=len(CONTENT))


def test_refusals(site: Site) -> None:
    assert read_all(site.http.open(site.at("/signed?sig=valid"), end=5)) == CONTENT[:5]
    assert read_all(site.http.open(site.at("/private", Authorization="Bearer valid"), end=5)) == CONTENT[:5]
    with pytest.raises(LocationExpired):
        site.http.open(site.at("/signed?sig=expired"))
    with pytest.raises(LocationExpired):
        site.http.open(site.at("/private", Authorization="Bearer expired"))
    with pytest.raises(SourceError, match="credentials"):
        site.http.open(site.at("/private"))
    with pytest.raises(SourceError, match="does not exist"):
        site.http.open(site.at("/missing"))
    with pytest.raises(TransientError) as raised:
        site.http.open(site.at("/busy"))
    assert raised.value.retry_after == 3


def test_a_redirect_from_https_to_http_is_refused(site: Site) -> None:
    if site.base.startswith("https"):
        with pytest.raises(SourceError, match="would lose TLS"):
            site.http.open(site.at("/to-http"))
    else:
        assert read_all(site.http.open(site.at("/to-http"), end=5)) == CONTENT[:5]


def test_a_server_without_tls_is_reported(site: Site) -> None:
    if site.base.startswith("https"):
        with pytest.raises(SourceError, match="answers 400"):
            site.http.open(HttpLocation(site.base.replace("https:", "http:") + "/weights.gguf"))
    else:
        with pytest.raises(SourceError, match=r"does not speak TLS; .*CORRAL_PLAIN_HTTP_HOSTS"):
            site.http.open(HttpLocation(site.base.replace("http:", "https:") + "/weights.gguf"))


def test_a_file_that_is_replaced_has_another_version(site: Site) -> None:
    path = site.folder / "changing.gguf"
    path.write_bytes(b"a" * 100)
    first = site.http.open(site.at("/changing.gguf"), end=10)
    path.unlink()
    path.write_bytes(b"b" * 101)
    second = site.http.open(site.at("/changing.gguf"), start=10)
    assert (first.version == second.version, first.total, second.total) == (False, 100, 101)
    first.close()
    second.close()
