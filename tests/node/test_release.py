"""The Helm release: its test hook, its permissions, and installation, upgrade, rollback and removal."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_core.contracts.api_keys import key_digest
from tests.cluster.api import at
from tests.node.real_cluster import AUDITED
from tests.node.release import CHART, COLD_START, IMAGES, NAME, NAMESPACE, Release
from tests.support.authority import Authority

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]


@pytest.mark.parametrize(
    "settings",
    [
        ["watchNamespaces={models}", "networkPolicy.enabled=false"],
        ["gateway.autoscaling.enabled=true", "operator.replicas=2", "settings.origins={https://chat.example.com}"],
        ["ingress.enabled=true", "ingress.host=models.example.com", "ingress.tlsSecret=tls", "service.type=NodePort"],
    ],
    ids=["one namespace", "scaled", "ingress"],
)
def test_the_api_server_accepts_the_chart_with_these_values(release: Release, settings: list[str]) -> None:
    flags = _set(*settings)
    shown = release.cluster.helm(
        "template", "other", str(CHART), "-n", NAMESPACE, "--kube-version", "1.36.0", *IMAGES, *flags
    )
    dry = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-")
    assert "deployment.apps/other-corral-gateway" in release.cluster.kubectl(*dry, input=shown)


def test_a_misspelt_value_is_rejected_by_name(release: Release) -> None:
    with pytest.raises(AssertionError, match="gatway"):
        release.upgrade("--set", "gatway.replicas=3")


def test_helm_test_sends_a_prompt(release: Release, model: str) -> None:
    release.add(model)
    release.wait_phase(model, "Idle")
    release.cluster.helm("test", NAME, "-n", NAMESPACE, "--timeout", "3m")
    assert release.replicas(model) == 1


def test_helm_test_sends_a_prompt_with_tls_and_an_api_key(release: Release, model: str, tmp_path: Path) -> None:
    pair = Authority(tmp_path, "authority").issue("models.example.com")
    tls = {"tls.crt": pair.certificate.read_text(), "tls.key": pair.key.read_text()}
    keys = f"keys: [{{name: test, sha256: {key_digest(b'corral_test').hex()}}}]"
    for name, data in (("corral-tls", tls), ("corral-keys", {"keys.yaml": keys}), ("test-key", {"key": "corral_test"})):
        metadata = {"name": name, "namespace": NAMESPACE}
        release.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data})
    release.add(model)
    release.wait_phase(model, "Idle")
    secrets = ("gateway.tls.secret=corral-tls", "gateway.apiKeys.secret=corral-keys", "helmTest.apiKey.secret=test-key")
    try:
        release.upgrade(*_set(*secrets))
        release.cluster.helm("test", NAME, "-n", NAMESPACE, "--timeout", "3m")
        assert release.replicas(model) == 1
    finally:
        release.upgrade(*_set(*(f"{secret.partition('=')[0]}=" for secret in secrets)))


def test_operator_and_gateways_never_get_forbidden(release: Release, model: str) -> None:
    release.add(model)
    release.ask(model).result(COLD_START)
    requests = release.cluster.control_plane.audited()
    assert {at(one, "user", "username") for one in requests} == set(AUDITED)
    forbidden = {_request(one) for one in requests if at(one, "responseStatus", "code") in (401, 403)}
    assert forbidden == set()


def test_models_answer_after_an_upgrade_and_a_rollback(release: Release, model: str) -> None:
    release.add(model)
    release.ask(model).result(COLD_START)
    revision = release.revision()
    release.upgrade("--set", "settings.keepAlive=7m")
    assert release.setting("operator", "OLLAMA_KEEP_ALIVE") == "7m"
    assert release.ask(model).result(COLD_START).ends == 1
    release.cluster.helm("rollback", NAME, str(revision), "-n", NAMESPACE, "--wait", "--timeout", "4m")
    assert release.setting("operator", "OLLAMA_KEEP_ALIVE") == "5m"
    assert release.ask(model).result(COLD_START).ends == 1
    release.cluster.api.delete(release.path(model))
    release.wait_gone(model, 40)  # a runner that missed its SIGTERM would be killed after 70 s


def test_uninstalling_keeps_models_and_a_new_installation_serves_them(release: Release, model: str) -> None:
    release.add(model)
    release.wait_phase(model, "Idle")
    release.cluster.helm("uninstall", NAME, "-n", NAMESPACE, "--wait", "--timeout", "4m")
    try:
        assert release.own_pods("operator") == release.own_pods("gateway") == []
        assert at(release.model(model), "spec", "source")
    finally:
        release.install()
    assert release.ask(model).result(COLD_START).ends == 1


def _set(*values: str) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def _request(one: object) -> tuple[str, str, str]:
    resource = "/".join(str(at(one, "objectRef", part)) for part in ("resource", "subresource"))
    return str(at(one, "verb")), str(at(one, "objectRef", "apiGroup")), resource.removesuffix("/None")
