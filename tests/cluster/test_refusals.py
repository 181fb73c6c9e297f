"""Runners that the API server refuses: admission policy, quota, limits and a wrong affinity.

The Model's conditions have the API server's message, clients get it as an error, and the Model recovers by itself when
nothing refuses its runners any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import ollama
import pytest

from tests.cluster.api import ApiError, Object, at, condition
from tests.cluster.fake_kubelet import ANNOTATION
from tests.cluster.installation import POLL_INTERVAL, START_TIMEOUT, Gateway, Installation
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
NO_RUNNERS = "no runners in this namespace"


def test_an_admission_policy_against_the_deployment_is_reported_until_it_is_gone(corral: Installation) -> None:
    gateway = started(corral)
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments"]}
    with policy(corral, rule, "object.spec.replicas == 0"):
        until(lambda: scaling_is_denied(corral), 60, what="the policy's effect", interval=POLL_INTERVAL)
        corral.edit("tiny", minReplicas=1)
        assert_reported(corral, gateway, "DeploymentRejected", NO_RUNNERS)
        assert corral.replicas("tiny") == 0
    corral.wait_replicas("tiny", 1)


def test_an_admission_policy_against_the_pod_is_reported_until_it_is_gone(corral: Installation) -> None:
    gateway = started(corral)
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    with policy(corral, rule, "false"):
        until(lambda: creation_is_denied(corral), 60, what="the policy's effect", interval=POLL_INTERVAL)
        corral.edit("tiny", minReplicas=1)
        assert_reported(corral, gateway, "PodRejected", NO_RUNNERS)
    recovers(corral)


def test_an_exceeded_quota_is_reported_until_it_is_raised(corral: Installation) -> None:
    gateway = started(corral)
    with quota(corral, pods="0"):
        with pytest.raises(ollama.ResponseError, match="exceeded quota"):
            corral.send(gateway, "tiny").result(START_TIMEOUT)
        corral.edit("tiny", minReplicas=1)
        assert_reported(corral, gateway, "QuotaExceeded", "exceeded quota")
    recovers(corral)


def test_a_quota_of_deployments_is_reported_until_it_is_raised(corral: Installation) -> None:
    with quota(corral, **{"count/deployments.apps": "0"}):
        corral.start_operator()
        gateway = corral.start_gateway()
        corral.add("tiny")
        assert_reported(corral, gateway, "QuotaExceeded", "Deployment: deployments.apps")
    corral.wait_phase("tiny", "Idle")


def test_limits_of_the_namespace_are_reported_until_they_are_raised(corral: Installation) -> None:
    gateway = started(corral)
    path = f"/api/v1/namespaces/{corral.namespace}/limitranges"
    limits = {"metadata": {"name": "small"}, "spec": {"limits": [{"type": "Container", "max": {"memory": "1Mi"}}]}}
    corral.cluster.api.create(path, limits)
    corral.edit("tiny", minReplicas=1)
    assert_reported(corral, gateway, "PodRejected", "maximum memory usage per Container is 1Mi")
    corral.cluster.api.delete(f"{path}/small")
    recovers(corral)


def test_a_pod_security_level_is_reported_until_it_is_lowered(corral: Installation) -> None:
    gateway = started(corral)
    labels = f"/api/v1/namespaces/{corral.namespace}"
    corral.cluster.api.patch(labels, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}})
    annotation = {"container.apparmor.security.beta.kubernetes.io/runner": "unconfined"}
    corral.edit("tiny", minReplicas=1, pod={"annotations": {ANNOTATION: "process", **annotation}})
    assert_reported(corral, gateway, "PodRejected", "violates PodSecurity")
    corral.cluster.api.patch(labels, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": None}}})
    recovers(corral)


def test_a_wrong_affinity_is_reported_until_it_is_corrected(corral: Installation) -> None:
    gateway = started(corral)
    terms = [{"topologyKey": ""}]
    corral.edit("tiny", pod={"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}})
    assert_reported(corral, gateway, "DeploymentRejected", "topologyKey")
    corral.edit("tiny", pod={"affinity": None})
    corral.wait_phase("tiny", "Idle")


def test_an_affinity_of_a_wrong_type_is_rejected_with_the_model(corral: Installation) -> None:
    wrong = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": "x"}}}
    with pytest.raises(AssertionError, match="nodeSelectorTerms"):
        corral.add("tiny", pod={"affinity": wrong})


def started(corral: Installation) -> Gateway:
    """Start operator and gateway, and add a Model that is idle."""
    corral.start_operator()
    gateway = corral.start_gateway()
    corral.add("tiny")
    corral.wait_phase("tiny", "Idle")
    return gateway


def assert_reported(corral: Installation, gateway: Gateway, reason: str, text: str) -> None:
    """Wait until phase and conditions say that the Model has failed with the reason; a request gets it as an error."""

    def reported() -> bool:
        found = corral.model("tiny")
        conditions = [condition(found, kind) for kind in ("Scheduled", "Ready")]
        return at(found, "status", "phase") == "Failed" and all(
            (each.get("status"), each.get("reason")) == ("False", reason) and text in str(each.get("message"))
            for each in conditions
        )

    until(reported, 60, what=f"the report of {reason}", interval=POLL_INTERVAL)
    with pytest.raises(ollama.ResponseError, match=text):
        corral.send(gateway, "tiny").result(START_TIMEOUT)


def recovers(corral: Installation) -> None:
    """Wait until the Model is not Failed any more, without a change of its spec."""
    until(
        lambda: corral.phase("tiny") != "Failed", START_TIMEOUT, what="the end of the failure", interval=POLL_INTERVAL
    )


@contextmanager
def quota(corral: Installation, **hard: str) -> Iterator[None]:
    path = f"/api/v1/namespaces/{corral.namespace}/resourcequotas"
    corral.cluster.api.create(path, {"metadata": {"name": "small"}, "spec": {"hard": hard}})
    known = f"{path}/small"
    until(lambda: at(corral.cluster.api.get(known), "status", "used"), 30, what="the quota's usage")
    yield
    corral.cluster.api.delete(known)


@contextmanager
def policy(corral: Installation, rule: Mapping[str, object], expression: str) -> Iterator[None]:
    """Deny what the rule matches in the namespace unless the CEL expression is true."""
    api, name = corral.cluster.api, corral.namespace
    here = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}}}
    spec: Object = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": expression, "message": NO_RUNNERS}],
    }
    binding: Object = {"policyName": name, "validationActions": ["Deny"], "matchResources": here}
    api.create(f"{ADMISSION}/validatingadmissionpolicies", {"metadata": {"name": name}, "spec": spec})
    api.create(f"{ADMISSION}/validatingadmissionpolicybindings", {"metadata": {"name": name}, "spec": binding})
    try:
        yield
    finally:
        api.delete(f"{ADMISSION}/validatingadmissionpolicybindings/{name}")
        api.delete(f"{ADMISSION}/validatingadmissionpolicies/{name}")


def scaling_is_denied(corral: Installation) -> bool:
    path = f"/apis/apps/v1/namespaces/{corral.namespace}/deployments/model-tiny"
    return is_denied(corral, "PATCH", path, {"spec": {"replicas": 1}})


def creation_is_denied(corral: Installation) -> bool:
    spec = {"containers": [{"name": "a", "image": "a"}]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec}
    return is_denied(corral, "POST", f"/api/v1/namespaces/{corral.namespace}/pods", pod)


def is_denied(corral: Installation, method: str, path: str, body: Mapping[str, object]) -> bool:
    """Return whether a dry run of the request is denied by the policy."""
    content = "application/merge-patch+json" if method == "PATCH" else "application/json"
    try:
        corral.cluster.api.request(method, path, body=body, query={"dryRun": "All"}, content=content)
    except ApiError as error:
        return NO_RUNNERS in str(error)
    return False
