"""Whether runners mount the image of their weights, by source, nodes and running Deployment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from corral_core.base.json_fields import JsonObject
from corral_core.contracts.source_resolution import ResolvedPins, SourceResolution
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.pulling.image_volumes import MountedImage
from corral_operator.observe.pulling.sources import expected_snapshots
from tests.operator import pull_samples, samples

KEY = "lab/tiny"
EARLIER, LATER = "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"
OLD = {"kubeletVersion": "v1.36.3", "containerRuntimeVersion": "containerd://1.7.28"}


def node(name: str, info: Mapping[str, str] = pull_samples.NODE_INFO, **spec: object) -> JsonObject:
    raw = samples.node(name)
    status = raw["status"]
    assert isinstance(status, dict)
    return {**raw, "spec": spec, "status": {**status, "nodeInfo": dict(info)}}


def state_of(model: JsonObject, *nodes: JsonObject, deployment: JsonObject | None = None) -> ClusterState:
    state = ClusterState()
    state.apply(Kind.MODELS, model)
    state.replace(Kind.NODES, nodes or [node("a"), node("b")], "1")
    state.replace(Kind.OTHER_PODS, [], "1")
    if deployment is not None:
        state.apply(Kind.DEPLOYMENTS, deployment)
    return state


def deployment(volume: str, *, replicas: int = 1, generation: int = 1, selector: str = "") -> JsonObject:
    """Return the Deployment of the sample Model with a volume of this type."""
    pod: dict[str, object] = {"volumes": [{"name": "weights", volume: {}}]}
    raw = samples.deployment(
        replicas=replicas, pod_spec=pod | ({"nodeSelector": {"gpu": selector}} if selector else {})
    )
    return samples.with_metadata(raw, annotations={"corral.dev/model-generation": str(generation)})


def test_an_image_is_mounted_by_its_digest() -> None:
    state = state_of(pull_samples.image_model())
    assert state.mounted_image(KEY) == MountedImage(
        f"registry.example:5000/team/model@{pull_samples.IMAGE_PIN}", "models/m.gguf"
    )
    assert state.pulled(KEY)


def test_the_resolver_reports_the_path_in_the_image() -> None:
    report = ResolvedPins((pull_samples.IMAGE_PIN,), pull_samples.SIZE, "models/m.gguf")
    metadata = replace(pull_samples.METADATA, source=pull_samples.IMAGE_SOURCE)
    state = state_of(pull_samples.image_model(source=None))
    assert not state.pulled(KEY)
    state.apply(Kind.PODS, pull_samples.inspector(report, metadata=metadata))
    assert state.source(KEY) == pull_samples.IMAGE
    assert state.pulled(KEY)


@pytest.mark.parametrize(
    ("source", "spec"),
    [
        (replace(pull_samples.IMAGE, image_path=""), {}),
        (pull_samples.IMAGE, {"cache": {"type": "claim"}}),
        (
            replace(pull_samples.IMAGE, pins={**pull_samples.IMAGE.pins, "https://a.example/lora.gguf": "1"}),
            {"adapters": [{"name": "lora", "source": "https://a.example/lora.gguf"}]},
        ),
    ],
    ids=["another artifact", "another cache", "a remote adapter"],
)
def test_other_sources_are_pulled(source: SourceResolution, spec: Mapping[str, object]) -> None:
    state = state_of(pull_samples.image_model(source=source, spec=spec))
    assert (state.mounted_image(KEY), state.pulled(KEY)) == (None, False)


@pytest.mark.parametrize("nodes", [[node("a"), node("b", OLD)], [node("a", {})]])
def test_a_cluster_with_a_node_that_cannot_mount_images_pulls(nodes: list[JsonObject]) -> None:
    state = state_of(pull_samples.image_model(), *nodes)
    assert (state.mounted_image(KEY), state.pulled(KEY)) == (None, False)


def test_a_cluster_whose_nodes_are_not_known_pulls() -> None:
    state = ClusterState()
    state.apply(Kind.MODELS, pull_samples.image_model())
    assert state.mounted_image(KEY) is None


def test_a_node_that_cannot_run_the_model_does_not_matter() -> None:
    old = node("old", OLD)
    labelled = samples.with_metadata(node("new"), labels={"gpu": "h100"})
    state = state_of(
        pull_samples.image_model(), labelled, old, deployment=deployment("image", replicas=0, selector="h100")
    )
    assert state.mounted_image(KEY) is not None


def test_a_cordoned_node_still_matters() -> None:
    assert (
        state_of(pull_samples.image_model(), node("a"), node("b", OLD, unschedulable=True)).mounted_image(KEY) is None
    )


def test_a_node_that_joins_changes_nothing_while_runners_run() -> None:
    running = deployment("image")
    state = state_of(pull_samples.image_model(), node("a"), deployment=running)
    state.apply(Kind.NODES, node("old", OLD))
    assert state.mounted_image(KEY) is not None
    stopped = samples.with_metadata(deployment("image", replicas=0), resourceVersion="11")
    state.apply(Kind.DEPLOYMENTS, stopped)
    assert state.mounted_image(KEY) is None


def test_a_node_that_leaves_changes_nothing_while_runners_run() -> None:
    assert (
        state_of(pull_samples.image_model(), deployment=deployment("persistentVolumeClaim")).mounted_image(KEY) is None
    )


def test_an_edited_model_may_change_from_a_claim_to_an_image() -> None:
    earlier = deployment("persistentVolumeClaim", generation=0)
    assert state_of(pull_samples.image_model(), deployment=earlier).mounted_image(KEY) is not None


def test_a_new_version_of_a_mounted_image_is_used_at_once() -> None:
    """What an earlier type of cache has left on a claim does not keep the present version."""
    ids = expected_snapshots(pull_samples.IMAGE)
    known = replace(pull_samples.IMAGE, snapshots=ids, claim="model-tiny", claim_uid="uid-claim", resolved_at=EARLIER)
    state = state_of(pull_samples.image_model(source=known, spec={"updatePolicy": "Poll"}))
    state.apply(Kind.CLAIMS, pull_samples.claim())
    found = "sha256:" + "1e" * 32
    metadata = replace(pull_samples.METADATA, source=pull_samples.IMAGE_SOURCE)
    report = ResolvedPins((found,), pull_samples.SIZE, "models/n.gguf")
    state.apply(Kind.PODS, pull_samples.inspector(report, metadata=metadata, finished=LATER))
    image = state.mounted_image(KEY)
    assert image is not None
    assert (image.reference.rpartition("@")[2], image.path) == (found, "models/n.gguf")
    assert state.update(KEY) is None
