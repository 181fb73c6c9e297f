"""Settings of the operator from the environment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corral_core.base.durations import FOREVER
from corral_core.base.errors import InvalidSetting
from corral_operator import config as operator_config
from corral_operator.config import HostCredentials, RunnerDefaults, from_environment


def test_an_empty_environment_gives_ollamas_defaults() -> None:
    config = from_environment({})
    assert config.policy.keep_alive == 300.0
    assert config.policy.loaded_limit == 3
    assert config.namespaces == ()
    assert config.runner.image == "corral/runner:dev"


def test_runners_inherit_the_installations_settings() -> None:
    config = from_environment({"OLLAMA_KEEP_ALIVE": "2h", "OLLAMA_NUM_PARALLEL": "4", "HOME": "/root"})
    assert config.runner.settings == {"OLLAMA_KEEP_ALIVE": "2h", "OLLAMA_NUM_PARALLEL": "4"}
    assert config.policy.keep_alive == 7200.0


def test_namespaces_are_separated_by_commas() -> None:
    assert from_environment({"CORRAL_WATCH_NAMESPACES": "red, blue"}).namespaces == ("red", "blue")


def test_a_load_timeout_of_zero_or_less_is_unlimited() -> None:
    assert from_environment({"OLLAMA_LOAD_TIMEOUT": "0"}).policy.load_timeout == FOREVER
    assert from_environment({"OLLAMA_LOAD_TIMEOUT": "90s"}).policy.load_timeout == 90.0


def test_an_invalid_value_is_rejected_with_the_name_of_the_variable() -> None:
    with pytest.raises(InvalidSetting, match="OLLAMA_MAX_LOADED_MODELS"):
        from_environment({"OLLAMA_MAX_LOADED_MODELS": "many"})


def test_every_process_has_an_identity() -> None:
    assert from_environment({}).lease.identity
    assert (from_environment({}).lease.namespace, from_environment({}).lease.name) == ("corral", "corral-operator")
    assert from_environment({"CORRAL_OPERATOR_ID": "one"}).lease.identity == "one"


def test_variables_of_every_runner_are_a_json_list() -> None:
    one = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}
    assert from_environment({"CORRAL_RUNNER_ENV": json.dumps([one])}).runner.env == (one,)
    for invalid in ("{}", "[1]", '[{"value": "x"}]', "A=b"):
        with pytest.raises(InvalidSetting, match="CORRAL_RUNNER_ENV"):
            from_environment({"CORRAL_RUNNER_ENV": invalid})


def test_the_credentials_of_hosts_are_a_json_list() -> None:
    one = {"host": "*.example.com:5000", "secretName": "registry"}
    found = from_environment({"CORRAL_PULLER_CREDENTIALS": json.dumps([one])}).runner.puller.credentials
    assert found == (HostCredentials("*.example.com:5000", "registry"),)
    assert from_environment({}).runner.puller.credentials == ()
    for invalid in ("{}", "[1]", "x", '[{"host": "a"}]', json.dumps([{**one, "host": "https://a"}, one])):
        with pytest.raises(InvalidSetting, match="CORRAL_PULLER_CREDENTIALS"):
            from_environment({"CORRAL_PULLER_CREDENTIALS": invalid})


def test_the_clients_of_the_runners_are_the_peers_of_a_network_policy_and_never_everybody() -> None:
    one = {"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}
    assert from_environment({"CORRAL_RUNNER_CLIENTS": json.dumps([one])}).runner.network_clients == (one,)
    assert from_environment({}).runner.network_clients == ()
    for invalid in ("[]", "[{}]", "{}", "[1]", '[{"podSelektor": {}}]', "pods"):
        with pytest.raises(InvalidSetting, match="CORRAL_RUNNER_CLIENTS"):
            from_environment({"CORRAL_RUNNER_CLIENTS": invalid})


def test_the_lease_is_by_default_in_the_namespace_of_the_pod(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "namespace"
    file.write_text("team-a\n")
    monkeypatch.setattr(operator_config, "POD_NAMESPACE", file)
    assert from_environment({}).lease.namespace == "team-a"
    assert from_environment({"CORRAL_LEASE_NAMESPACE": "b"}).lease.namespace == "b"
    assert from_environment({"KUBECONFIG": "/x"}).lease.namespace == "corral"


def test_runner_images_are_set_by_accelerator_and_switched_off_by_none() -> None:
    assert from_environment({}).runner.images == RunnerDefaults().images
    environ = {"CORRAL_RUNNER_IMAGE_CUDA": "none", "CORRAL_RUNNER_IMAGE_ROCM": "r/rocm:1"}
    assert from_environment(environ).runner.images == {"vulkan": "corral/runner-vulkan:dev", "rocm": "r/rocm:1"}


def test_labels_and_tolerations_of_the_pods_of_models_are_checked() -> None:
    given = [{"key": "dedicated", "value": "models", "effect": "NoSchedule"}]
    environ = {"CORRAL_RUNNER_NODE_SELECTOR": '{"pool": "models"}', "CORRAL_RUNNER_TOLERATIONS": json.dumps(given)}
    runner = from_environment(environ).runner
    assert (runner.node_selector, list(runner.tolerations)) == ({"pool": "models"}, given)
    assert (from_environment({}).runner.node_selector, from_environment({}).runner.tolerations) == ({}, ())
    for name, invalid in (
        ("CORRAL_RUNNER_NODE_SELECTOR", '["pool"]'),
        ("CORRAL_RUNNER_NODE_SELECTOR", '{"pool": "a b"}'),
        ("CORRAL_RUNNER_TOLERATIONS", '[{"keys": "dedicated"}]'),
        ("CORRAL_RUNNER_TOLERATIONS", "dedicated"),
    ):
        with pytest.raises(InvalidSetting, match=name):
            from_environment({name: invalid})


@pytest.mark.parametrize(("value", "runtime_class"), [("", None), ("auto", None), ("none", ""), ("cdi", "cdi")])
def test_the_runtime_class_is_the_clusters_or_none_or_a_name(value: str, runtime_class: str | None) -> None:
    assert from_environment({"CORRAL_RUNNER_RUNTIME_CLASS": value}).runner.runtime_class == runtime_class


def test_settings_of_gpu_pods_are_checked() -> None:
    given = {"nvidia": {"tolerations": [{"key": "a", "operator": "Exists"}]}}
    runner = from_environment({"CORRAL_RUNNER_ACCELERATORS": json.dumps(given)}).runner
    assert runner.gpu_pod("nvidia.com/gpu").tolerations == [{"key": "a", "operator": "Exists"}]
    for invalid in ('{"voodoo": {}}', '{"nvidia": {"nodes": {}}}', '{"amd": {"env": [{"value": "x"}]}}', "[]", "a"):
        with pytest.raises(InvalidSetting, match="CORRAL_RUNNER_ACCELERATORS"):
            from_environment({"CORRAL_RUNNER_ACCELERATORS": invalid})
