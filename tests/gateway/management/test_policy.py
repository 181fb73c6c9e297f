"""Policy for Models that clients create: which clients, which Models, and where."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.base.errors import InvalidSetting
from corral_server.gateway.auth.key_file import ApiKey
from corral_server.gateway.management.policy import ANYONE, NEVER, CreationPolicy
from corral_server.wire.errors import ApiError

TEAM = ApiKey("ci", b"", namespaces=("team-a", "base"))
ALL = ApiKey("admin", b"")


def test_a_model_is_made_in_the_first_namespace_of_the_key() -> None:
    assert CreationPolicy(namespace="models").namespace_of(TEAM) == "team-a"
    assert CreationPolicy(namespace="models").namespace_of(ALL) == "models"


def test_without_a_key_nothing_is_made_by_default() -> None:
    with pytest.raises(ApiError, match="needs an API key") as caught:
        CreationPolicy().namespace_of(None)
    assert caught.value.status == 403


def test_anyone_may_create_where_the_policy_says_so() -> None:
    assert CreationPolicy(create=ANYONE, namespace="models").namespace_of(None) == "models"


def test_never_applies_to_keys_as_well() -> None:
    with pytest.raises(ApiError, match=r"models\.create"):
        CreationPolicy(create=NEVER).namespace_of(ALL)


def test_a_key_that_may_not_create_models_is_refused() -> None:
    with pytest.raises(ApiError, match="this API key may not create or change models") as caught:
        CreationPolicy(create=ANYONE).namespace_of(replace(TEAM, create_models=False))
    assert caught.value.status == 403


def test_keys_in_secrets_of_namespaces_can_be_excluded() -> None:
    policy = CreationPolicy.from_environment({"CORRAL_MODELS_NAMESPACE_KEYS": "0"})
    assert policy.namespace_of(TEAM) == "team-a"
    with pytest.raises(ApiError, match=r"models\.namespaceKeys"):
        policy.namespace_of(replace(TEAM, in_secret=True))


def test_models_are_made_only_in_the_listed_namespaces() -> None:
    policy = CreationPolicy.from_environment(
        {"CORRAL_MODELS_NAMESPACE": "models", "CORRAL_MODELS_NAMESPACES": "models,team-b"}
    )
    assert policy.namespace_of(ALL) == "models"
    with pytest.raises(ApiError, match=r"namespace team-a: .*CORRAL_MODELS_NAMESPACES"):
        policy.namespace_of(TEAM)


@pytest.mark.parametrize("uri", ["ollama://llama3.2", "ollama://someone/x:1b", "hf://org/repo:Q4_K_M"])
def test_the_registry_of_ollama_and_hugging_face_are_allowed_by_default(uri: str) -> None:
    CreationPolicy().check_source(uri)


@pytest.mark.parametrize(
    "uri", ["ollama://10.0.0.1:5000/library/x", "https://host/x.gguf", "file:///etc/x.gguf", "pvc://claim/x.gguf"]
)
def test_other_hosts_and_files_of_the_runner_are_not_allowed_by_default(uri: str) -> None:
    with pytest.raises(ApiError, match=r"CORRAL_MODELS_SOURCES") as caught:
        CreationPolicy().check_source(uri)
    assert caught.value.status == 403


def test_the_first_profile_that_matches_the_source_has_the_defaults() -> None:
    policy = CreationPolicy.from_environment(
        {
            "CORRAL_MODELS_PROFILES": '[{"sources": ["*:70b"], "spec": {"gpu": {"count": 4}}},'
            ' {"spec": {"keepAlive": "1h"}}]'
        }
    )
    assert policy.defaults("ollama://llama3.3:70b") == {"gpu": {"count": 4}}
    assert policy.defaults("ollama://llama3.2") == {"keepAlive": "1h"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CORRAL_MODELS_CREATE", "sometimes"),
        ("CORRAL_MODELS_NAMESPACE", "Not/One"),
        ("CORRAL_MODELS_NAMESPACES", "models,Not/One"),
        ("CORRAL_MODELS_NAMESPACE_KEYS", "some"),
        ("CORRAL_MODELS_PROFILES", "{"),
        ("CORRAL_MODELS_PROFILES", "{}"),
        ("CORRAL_MODELS_PROFILES", '[{"spec": {"source": "ollama://x"}}]'),
        ("CORRAL_MODELS_PROFILES", '[{"spec": {"keepAlive": "soon"}}]'),
        ("CORRAL_MODELS_PROFILES", '[{"spec": {}, "sources": "*"}]'),
    ],
)
def test_invalid_settings_are_errors(name: str, value: str) -> None:
    with pytest.raises(InvalidSetting, match=name):
        CreationPolicy.from_environment({name: value})
