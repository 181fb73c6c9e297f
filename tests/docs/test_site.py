"""The documentation site: a strict build, which checks links and anchors, and no asset from another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docs.snippets import DOCS, ROOT

pytestmark = pytest.mark.slow

ASSETS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data", "use": "href"}
"""Attribute with the address of what a browser loads, by the element."""
_STYLE_URL = re.compile(r"url\(\s*['\"]?(?:https?:)?//|@import\s+['\"]?(?:https?:)?//")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site with warnings as errors: a broken link, a missing anchor and a page outside docs/ are warnings."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


class _Page(HTMLParser):
    """Addresses of assets and of links, and the text of paragraphs, of an HTML page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.assets: list[str] = []
        self.links: list[str] = []
        self.paragraphs: list[str] = []
        self._inside: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if address := values.get(ASSETS.get(tag, "")):
            self.assets.append(address)
        if tag == "link" and "canonical" not in values.get("rel", ""):
            self.assets.append(values.get("href", ""))
        if tag == "a":
            self.links.append(values.get("href", ""))
        if tag == "p":
            self.paragraphs.append("")
        if tag in ("p", "code", "pre"):
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self._inside:
            while self._inside.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self._inside == ["p"]:
            self.paragraphs[-1] += data


def _external(address: str) -> bool:
    return address.startswith(("http:", "https:", "//"))


def test_no_page_loads_an_asset_of_another_host(site: Path) -> None:
    pages = {path: _Page(path.read_text("utf-8")) for path in site.rglob("*.html")}
    assert len(pages) > 30
    assert all(page.assets for page in pages.values())
    assert [(path, one) for path, page in pages.items() for one in page.assets if _external(one)] == []


def test_no_stylesheet_loads_an_asset_of_another_host(site: Path) -> None:
    sheets = list(site.rglob("*.css"))
    assert sheets
    assert [sheet.name for sheet in sheets if _STYLE_URL.search(sheet.read_text("utf-8"))] == []


def test_the_navigation_has_every_page(site: Path) -> None:
    linked = {link.rstrip("/") for link in _Page((site / "index.html").read_text("utf-8")).links}
    pages = {path.relative_to(DOCS).with_suffix("").as_posix().removesuffix("/index") for path in DOCS.rglob("*.md")}
    assert sorted(pages - linked - {"index"}) == []


def test_lists_and_tables_are_rendered(site: Path) -> None:
    """A list or table that a renderer does not recognize is a paragraph with the characters of its Markdown."""
    markup = re.compile(r"^\s*(?:[-*] |1\. |\|.*\|$)", re.MULTILINE)
    found = [
        f"{path.relative_to(site)}: {text.strip()[:80]}"
        for path in site.rglob("*.html")
        for text in _Page(path.read_text("utf-8")).paragraphs
        if markup.search(text)
    ]
    assert found == []
