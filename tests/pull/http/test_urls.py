"""URLs: what is parsed, refused and shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.base.errors import SourceError
from corral_server.pull.http.urls import MAX_URL, join_url, parse_url


@pytest.mark.parametrize(
    ("url", "full"),
    [
        ("https://Example.COM", "https://example.com/"),
        ("https://example.com.:443/a", "https://example.com/a"),
        ("https://example.com:8443?b", "https://example.com:8443/?b"),
        ("http://[FD00::0:1]:80/a#fragment", "http://[fd00::1]/a"),
        ("https://127.1/", "https://127.0.0.1/"),
        ("https://a/b c/\u00fc?x=%2f&y=+", "https://a/b%20c/%C3%BC?x=%2f&y=+"),
    ],
)
def test_urls_are_normalized(url: str, full: str) -> None:
    assert parse_url(url).full == full
    assert parse_url(full).full == full


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com",
        "//example.com/",
        "ftp://example.com/",
        "https://",
        "https://user@example.com/",
        "https://example.com:0/",
        "https://example.com:x/",
        "https://example.com:70000/",
        "https://exa\nmple.com/",
        "https://example.com/\x00",
        "https://a..b/",
        "https://a\\b/",
        "https://[fd00::1%25eth0]/",
        "https://[fd00::1/",
        "https://-a.example.com/",
        f"https://{'a' * 300}/",
        f"https://a/{'b' * MAX_URL}",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(SourceError):
        parse_url(url)


def test_a_query_is_not_shown() -> None:
    url = parse_url("https://example.com/a/b?sig=geheim")
    assert str(url) == "https://example.com/a/b"
    assert "geheim" not in repr(url)
    assert len(str(parse_url("https://example.com/" + "a" * 5000))) < 300


@given(st.text(max_size=60), st.sampled_from(["https://", "http://[", "https://example.com", ""]))
def test_every_text_is_a_url_or_refused(text: str, prefix: str) -> None:
    try:
        url = parse_url(prefix + text)
    except SourceError:
        return
    assert parse_url(url.full) == url
    assert url.full.isascii()
    assert not set(url.full) & set(' \r\n\t"<>\\^`{|}')


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_every_location_is_a_url_or_refused(text: str) -> None:
    base = parse_url("https://example.com/a/b?c")
    try:
        url = join_url(base, text)
    except SourceError:
        return
    assert url.scheme in ("http", "https")
    assert parse_url(url.full) == url
