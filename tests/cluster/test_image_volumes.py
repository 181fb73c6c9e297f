"""Image volume of a runner pod on a real API server."""

from __future__ import annotations

import pytest

from corral_core.model.resource import parse_model
from corral_operator.config import RunnerDefaults
from corral_operator.observe.pulling.image_volumes import mountable_image
from corral_operator.reconcile.runner_pod import pod_spec
from tests.cluster.api import at
from tests.cluster.cluster import Cluster
from tests.operator import pull_samples
from tests.support.waiting import until

pytestmark = pytest.mark.cluster


def test_a_runner_that_mounts_an_image_is_admitted_under_the_restricted_level(cluster: Cluster, namespace: str) -> None:
    folder = f"/api/v1/namespaces/{namespace}"
    cluster.api.patch(folder, {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
    until(lambda: cluster.api.find(f"{folder}/serviceaccounts/default"), 60, what="the default service account")
    image = mountable_image(parse_model(pull_samples.image_model()), pull_samples.IMAGE)
    assert image is not None
    spec = pod_spec(parse_model(pull_samples.image_model()), None, defaults=RunnerDefaults(), image=image)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "runner"}, "spec": spec}
    made = cluster.api.request("POST", f"{folder}/pods", body=pod, query={"dryRun": "All"})
    volumes = at(made, "spec", "volumes")
    assert isinstance(volumes, list)
    assert [volume["image"] for volume in volumes if "image" in volume] == [
        {"reference": image.reference, "pullPolicy": "IfNotPresent"}
    ]
