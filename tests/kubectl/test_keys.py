"""API keys of a namespace as ``kubectl corral keys`` writes them, and as the gateway reads them."""

from __future__ import annotations

import hashlib

import pytest
import yaml

from corral_kubectl.keys import entries, key_lines, with_new_key, without_key
from corral_kubectl.models import CommandFailed
from corral_server.gateway.auth.key_file import parse_keys

BY_HAND = yaml.safe_dump({"keys": [{"name": "ci", "sha256": "ab" * 32}, {"name": "web", "sha256": "cd" * 32}]})


def test_the_gateway_reads_a_created_key() -> None:
    fields = {"models": ["llama3*"], "expires": "2027-01-31T00:00:00Z", "requestsPerMinute": 60, "concurrent": None}
    items, key = with_new_key({"keys.yaml": BY_HAND}, "team-a", "app", fields)
    assert items["keys.yaml"] == BY_HAND, "what was written by hand stays as it is"
    (read,) = parse_keys(items["app.yaml"], namespace="team-a")
    assert (read.name, read.models, read.requests_per_minute) == ("team-a/app", ("llama3*",), 60)
    assert read.digest == hashlib.sha256(key.encode()).digest()
    assert key.startswith("corral_team-a.")
    assert key not in "".join(items.values())


@pytest.mark.parametrize(
    ("name", "fields", "text"),
    [
        ("ci", {}, "there is a key ci already"),
        ("a b", {}, "1 to 63"),
        ("app", {"expires": "tomorrow"}, "2027-01-31"),
        ("app", {"tokensPerDay": 0}, "tokensPerDay must be at least 1"),
    ],
)
def test_a_key_that_a_gateway_would_refuse_is_not_created(name: str, fields: dict[str, object], text: str) -> None:
    with pytest.raises(CommandFailed, match=text):
        with_new_key({"keys.yaml": BY_HAND}, "team-a", name, fields)


def test_a_deleted_key_leaves_the_others() -> None:
    items, _ = with_new_key({"keys.yaml": BY_HAND}, "team-a", "app", {})
    left = without_key(without_key(items, "app"), "ci")
    assert list(left) == ["keys.yaml"]
    assert [entry["name"] for entry in entries(left)] == ["web"]
    assert without_key(left, "web") == {}
    with pytest.raises(CommandFailed, match="no key app"):
        without_key(left, "app")


def test_an_item_may_have_the_name_of_a_new_key() -> None:
    items, _ = with_new_key({"app.yaml": BY_HAND}, "team-a", "app", {})
    assert sorted(items) == ["app-2.yaml", "app.yaml"]


def test_the_list_shows_what_keys_allow_and_no_hash() -> None:
    items, _ = with_new_key({"keys.yaml": BY_HAND}, "team-a", "app", {"models": ["x*"], "tokensPerDay": 5})
    lines = key_lines(items)
    assert lines[0].split() == ["NAME", "MODELS", "EXPIRES", "LIMITS"]
    assert [line.split() for line in lines[1:]] == [
        ["app", "x*", "never", "tokensPerDay=5"],
        ["ci", "*", "never", "none"],
        ["web", "*", "never", "none"],
    ]
    assert "abab" not in "\n".join(lines)
    assert key_lines({}) == []


@pytest.mark.parametrize("text", ["keys: 1", "a: [", "- x"])
def test_an_item_that_is_no_key_file_is_named(text: str) -> None:
    with pytest.raises(CommandFailed, match=r"item bad\.yaml"):
        key_lines({"bad.yaml": text})
