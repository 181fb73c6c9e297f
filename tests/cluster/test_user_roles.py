"""Permissions of users: the cluster's roles view, edit and admin include Models, on a real API server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from tests.cluster.api import Object, at
from tests.cluster.cluster import Cluster
from tests.cluster.helm import Helm, rendered
from tests.cluster.installation import SOURCE
from tests.support.waiting import until

pytestmark = pytest.mark.cluster

READ = {"get", "list", "watch"}
WRITE = {"create", "update", "patch", "delete", "deletecollection"}


@pytest.fixture
def roles(cluster: Cluster, helm: Helm) -> Iterator[None]:
    """Create the ClusterRoles of the chart."""
    made = [item for item in rendered(helm, {}) if "-models-" in str(at(item, "metadata", "name"))]
    text = "\n---\n".join(json.dumps(item) for item in made)
    assert [item["kind"] for item in made] == ["ClusterRole", "ClusterRole"]
    cluster.kubectl("apply", "--server-side", "-f", "-", input=text)
    yield
    cluster.kubectl("delete", "--wait=false", "-f", "-", input=text)


def bind(cluster: Cluster, namespace: str, role: str) -> str:
    """Give a new user the role in the namespace; return the user."""
    user = f"{role}-of-{namespace}"
    cluster.kubectl("-n", namespace, "create", "rolebinding", user, f"--clusterrole={role}", f"--user={user}")
    return user


def allowed(cluster: Cluster, namespace: str, user: str, resource: str, verbs: set[str]) -> set[str]:
    """Return which of the verbs a SubjectAccessReview allows."""
    name, _, subresource = resource.partition("/")

    def review(verb: str) -> bool:
        asked: Object = {"group": "corral.dev", "resource": name, "subresource": subresource}
        spec = {"user": user, "resourceAttributes": {**asked, "verb": verb, "namespace": namespace}}
        answer = cluster.api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", {"spec": spec})
        return at(answer, "status", "allowed") is True

    return {verb for verb in verbs if review(verb)}


@pytest.mark.usefixtures("roles")
@pytest.mark.parametrize(("role", "writes"), [("view", set[str]()), ("edit", WRITE), ("admin", WRITE)])
def test_a_user_with_a_role_of_the_cluster_has_it_for_models(
    cluster: Cluster, namespace: str, role: str, writes: set[str]
) -> None:
    user = bind(cluster, namespace, role)
    everything = READ | WRITE
    until(
        lambda: allowed(cluster, namespace, user, "models", everything) == READ | writes,
        20,
        what=f"the aggregation to {role}",
        interval=0.2,
    )
    scaling = {"update", "patch"} & writes
    assert allowed(cluster, namespace, user, "models/scale", everything) == READ | scaling
    assert allowed(cluster, namespace, user, "models/status", everything) == READ
    assert allowed(cluster, "default", user, "models", everything) == set()


@pytest.mark.usefixtures("roles")
def test_an_editor_creates_models_and_a_viewer_cannot(cluster: Cluster, namespace: str) -> None:
    editor, viewer = bind(cluster, namespace, "edit"), bind(cluster, namespace, "view")
    metadata = {"name": "shared", "namespace": namespace}
    model = {"apiVersion": "corral.dev/v1alpha1", "kind": "Model", "metadata": metadata, "spec": {"source": SOURCE}}

    def as_user(user: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return cluster.kubectl("--as", user, "-n", namespace, *arguments, input=json.dumps(model), check=False)

    until(lambda: as_user(editor, "create", "-f", "-").returncode == 0, 20, what="the Model", interval=0.3)
    until(lambda: as_user(viewer, "get", "model", "shared").returncode == 0, 20, what="the viewer", interval=0.3)
    denied = as_user(viewer, "delete", "model", "shared")
    assert "forbidden" in denied.stderr
    status = json.dumps({"status": {"phase": "Ready"}})
    patch = ("patch", "model", "shared", "--type=merge", "-p", status)
    assert "forbidden" in as_user(editor, *patch, "--subresource=status").stderr
    assert as_user(editor, "scale", "model", "shared", "--replicas=1").returncode == 0
