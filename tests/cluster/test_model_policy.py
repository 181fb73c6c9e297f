"""The chart's admission policy for Models, on a real API server."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.cluster.api import MODELS, ApiError, Object, at
from tests.cluster.cluster import Cluster
from tests.cluster.helm import Helm, rendered
from tests.support.waiting import until

pytestmark = pytest.mark.cluster

LISTS = {
    "imageRegistries": ["registry.example/models/"],
    "secrets": ["runner"],
    "priorityClasses": ["batch"],
    "runtimeClasses": ["nvidia"],
}
Refusal = Callable[..., str | None]


def secret(name: str) -> list[Object]:
    return [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": name, "key": "token"}}}]


@contextmanager
def policy(cluster: Cluster, helm: Helm, namespace: str, **values: object) -> Iterator[Refusal]:
    """Install the policy for one namespace; yield a function that returns why a Model is refused, None if it is not."""
    chosen = {"enabled": True, "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    made = rendered(helm, {"modelPolicy": {**chosen, **values}}, namespace=namespace)
    made = [item for item in made if str(item["kind"]).startswith("ValidatingAdmissionPolicy")]
    assert len(made) == 2
    text = "\n---\n".join(json.dumps(item) for item in made)
    cluster.kubectl("apply", "--server-side", "-f", "-", input=text)

    def refusal(
        name: str = "any",
        *,
        runtime: str | None = None,
        dry: str = "All",
        more: Object | None = None,
        **pod: object,
    ) -> str | None:
        spec: Object = {"source": "file:///x.gguf", **({"pod": pod} if pod else {}), **(more or {})}
        if runtime is not None:
            spec["runtimeClassName"] = runtime
        body = {"apiVersion": "corral.dev/v1alpha1", "kind": "Model", "metadata": {"name": name}, "spec": spec}
        path = f"{MODELS}/namespaces/{namespace}/models"
        try:
            cluster.api.request("POST", path, body=body, query={"dryRun": dry} if dry else {})
        except ApiError as error:
            return str(error)
        return None

    try:
        until(lambda: refusal(image="elsewhere.example/x"), 30, what="the policy in effect", interval=0.2)
        yield refusal
    finally:
        cluster.kubectl("delete", "-f", "-", input=text)


def test_only_what_the_lists_name_is_admitted(cluster: Cluster, helm: Helm, namespace: str) -> None:
    with policy(cluster, helm, namespace, **LISTS) as refusal:
        assert refusal() is None
        assert refusal(labels={"team": "a"}, env=[{"name": "A", "value": "b"}]) is None
        assert refusal(image="registry.example/models/own:1") is None
        assert refusal(image="registry.example/corral/runner:1") is None, "the installation's own image"
        for image in ("registry.example/models.evil/x", "registry.example/other:1", "registry.example.evil/models/x"):
            assert "registry.example/models/" in str(refusal(image=image)), image
        assert refusal(env=secret("runner")) is None
        assert "Secrets runner" in str(refusal(env=[*secret("runner"), {**secret("admin")[0], "name": "B"}]))
        assert refusal(env=[{"name": "A", "valueFrom": {"secretKeyRef": {"key": "token"}}}]) is not None
        assert refusal(env=[{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]) is None
        assert refusal(priorityClassName="batch") is None
        assert "PriorityClasses batch" in str(refusal(priorityClassName="system-node-critical"))
        assert refusal(runtime="nvidia") is None
        assert "RuntimeClasses nvidia" in str(refusal(runtime="privileged"))


def pull_secrets(name: str) -> list[Object]:
    """Return the fields by which the pull of a Model names a Secret."""
    return [
        {"sourceSecretRef": {"name": name}},
        {"proxy": {"httpsProxySecretRef": {"name": name, "key": "url"}}},
        {"proxy": {"caBundle": {"secretName": name}}},
    ]


def test_a_pull_uses_only_the_named_secrets(cluster: Cluster, helm: Helm, namespace: str) -> None:
    with policy(cluster, helm, namespace, **LISTS) as refusal:
        for more in pull_secrets("runner"):
            assert refusal(more=more) is None, more
        for more in pull_secrets("admin"):
            assert "Secrets runner" in str(refusal(more=more)), more
        assert refusal(more={"proxy": {"httpsProxy": "http://proxy.example:3128", "noProxy": "a"}}) is None
        assert refusal(more={"proxy": {"caBundle": {"configMapName": "any"}}}) is None


def test_without_lists_models_set_none_of_it(cluster: Cluster, helm: Helm, namespace: str) -> None:
    with policy(cluster, helm, namespace) as refusal:
        assert refusal() is None
        for refused in (refusal(env=secret("runner")), refusal(priorityClassName="batch"), refusal(runtime="nvidia")):
            assert "not allowed in this cluster; the administrator can change it (modelPolicy" in str(refused)


def test_an_asterisk_admits_every_value(cluster: Cluster, helm: Helm, namespace: str) -> None:
    every = {name: ["*"] for name in LISTS if name != "imageRegistries"}
    with policy(cluster, helm, namespace, **every) as refusal:
        assert refusal(runtime="any", priorityClassName="any", env=secret("any")) is None


def test_a_model_from_before_the_policy_stays_until_its_spec_changes(
    cluster: Cluster, helm: Helm, namespace: str
) -> None:
    path = f"{MODELS}/namespaces/{namespace}/models"
    spec = {"source": "file:///x.gguf", "pod": {"image": "elsewhere.example/x"}}
    body = {"apiVersion": "corral.dev/v1alpha1", "kind": "Model", "metadata": {"name": "old"}, "spec": spec}
    cluster.api.create(path, body)
    with policy(cluster, helm, namespace) as refusal:
        assert refusal("new", dry="", image="elsewhere.example/x")
        cluster.api.patch(f"{path}/old", {"metadata": {"labels": {"team": "a"}}})
        cluster.api.patch(f"{path}/old/status", {"status": {"phase": "Idle"}})
        with pytest.raises(ApiError, match=r"spec\.pod\.image is not allowed"):
            cluster.api.patch(f"{path}/old", {"spec": {"keepAlive": "1m"}})
        changed = cluster.api.patch(f"{path}/old", {"spec": {"keepAlive": "1m", "pod": {"image": None}}})
        assert at(changed, "spec", "keepAlive") == "1m"
