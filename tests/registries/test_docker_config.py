from __future__ import annotations

import base64
import json

import pytest

from corral_core.base.errors import SourceError
from corral_server.registries.docker_config import NO_LOGIN, api_host, find_login


def _auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def _user(auths: dict[str, object], registry: str, repository: str = "team/model") -> str:
    return find_login(json.dumps({"auths": auths}), registry, repository=repository).username


def test_entry_is_found_by_host_and_port() -> None:
    auths: dict[str, object] = {"registry.example": _auth("plain", "x"), "registry.example:5000": _auth("port", "x")}
    assert _user(auths, "registry.example:5000") == "port"
    assert _user(auths, "registry.example") == "plain"
    assert _user(auths, "other.example") == ""


@pytest.mark.parametrize(
    "key",
    ["https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io", "https://docker.io/v2/"],
)
@pytest.mark.parametrize("registry", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_all_names_of_docker_hub_are_one_registry(key: str, registry: str) -> None:
    assert _user({key: _auth("hub", "x")}, registry) == "hub"


def test_longest_path_has_precedence_and_paths_end_at_a_slash() -> None:
    auths: dict[str, object] = {
        "quay.io": _auth("host", "x"),
        "quay.io/team": _auth("team", "x"),
        "quay.io/team/model": _auth("model", "x"),
    }
    assert _user(auths, "quay.io", "team/model") == "model"
    assert _user(auths, "quay.io", "team/models") == "team"
    assert _user(auths, "quay.io", "teams/model") == "host"


def test_wildcard_stands_for_one_label_and_exact_hosts_have_precedence() -> None:
    auths: dict[str, object] = {"*.example.com": _auth("any", "x"), "b.example.com": _auth("exact", "x")}
    assert _user(auths, "a.example.com") == "any"
    assert _user(auths, "b.example.com") == "exact"
    assert _user(auths, "a.b.example.com") == ""
    assert _user(auths, "example.com") == ""


def test_user_password_and_tokens_are_read() -> None:
    auths = {
        "a.example": {"username": "u", "password": "p:with:colons"},
        "b.example": {"auth": _auth("00000000-0000-0000-0000-000000000000", "")["auth"], "identitytoken": "refresh"},
        "c.example": {"registrytoken": "bearer"},
        "d.example": _auth("u", "p:with:colons"),
    }
    config = json.dumps({"auths": auths, "credsStore": "desktop"})
    assert find_login(config, "a.example", repository="m").password == "p:with:colons"
    assert find_login(config, "b.example", repository="m").identity_token == "refresh"
    assert find_login(config, "c.example", repository="m").registry_token == "bearer"
    assert find_login(config, "d.example", repository="m").password == "p:with:colons"


def test_no_config_and_no_entry_are_no_login() -> None:
    assert find_login("", "a.example", repository="m") == NO_LOGIN
    assert find_login("{}", "a.example", repository="m") == NO_LOGIN
    assert find_login('{"auths": {"a.example": 5}}', "a.example", repository="m") == NO_LOGIN


@pytest.mark.parametrize("config", ["{", "[]", '{"auths": {"a.example": {"auth": "%%"}}}', "[" * 100_000])
def test_invalid_config_is_an_error_without_its_content(config: str) -> None:
    with pytest.raises(SourceError, match="docker config"):
        find_login(config, "a.example", repository="m")


def test_undecodable_auth_is_not_repeated_in_the_error() -> None:
    encoded = base64.b64encode(b"password-without-a-user").decode()
    with pytest.raises(SourceError) as error:
        find_login(json.dumps({"auths": {"a.example": {"auth": encoded}}}), "a.example", repository="m")
    assert encoded not in str(error.value)


def test_repr_of_a_login_shows_nothing() -> None:
    login = find_login(json.dumps({"auths": {"a.example": _auth("u", "hidden")}}), "a.example", repository="m")
    assert "hidden" not in repr(login)


def test_host_is_in_lower_case() -> None:
    assert api_host("Registry.Example:5000") == "registry.example:5000"
