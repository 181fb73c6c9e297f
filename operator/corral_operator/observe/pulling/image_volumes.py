"""Image of weights that the kubelet pulls and mounts into the runner, in place of a pull onto a claim.

A source that is an image with a GGUF file is mounted if ``spec.cache.type`` is ``image`` and all nodes that could run a
runner have image volumes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from corral_core.contracts.source_resolution import SourceResolution
from corral_core.model.model import Model
from corral_core.model.pulling import IMAGE
from corral_core.planning.node import PodRequirements
from corral_core.planning.node_fit import could_ever_run
from corral_core.planning.snapshot import NodeState
from corral_core.sources.forms import OciSource
from corral_core.sources.uri import parse_source
from corral_operator.observe.objects import DeploymentObject, ModelObject


@dataclass(frozen=True, slots=True)
class MountedImage:
    """``reference`` has the digest of the manifest; ``path`` is that of the weights in the image."""

    reference: str
    path: str


def mountable_image(model: Model, source: SourceResolution | None) -> MountedImage | None:
    """Return the image that the spec asks to mount, None if the sources must be pulled in any cluster.

    Remote adapters need a pull, which brings the weights as well.
    """
    form = parse_source(model.spec.source)
    if model.spec.cache.type != IMAGE or source is None or not isinstance(form, OciSource):
        return None
    pin = source.pins.get(form.uri, "")
    if not source.image_path or set(source.pins) != {form.uri} or not pin.startswith("sha256:"):
        return None
    return MountedImage(f"{form.registry}/{form.repository}@{pin}", source.image_path)


def mounts_image(
    item: ModelObject,
    deployments: Iterable[DeploymentObject],
    nodes: Sequence[NodeState],
    *,
    requirements: PodRequirements | None,
) -> bool:
    """Return whether runners of the Model mount an image, if its source is one.

    They do if at least one node could ever run them, and all of these nodes have image volumes. While the
    ``requirements`` are not known, all nodes count. Conditions that come and go, such as a cordon, do not matter. While
    runners of the present spec run, they keep what they have, so that no node that joins or leaves rolls a Model.
    """
    if item.model is None or item.model.spec.cache.type != IMAGE:
        return False
    for known in deployments:
        if known.replicas and known.model_generation == item.meta.generation:
            return known.mounts_image

    def suitable(state: NodeState) -> bool:
        return requirements is None or could_ever_run(state.node, requirements)

    without = (state for state in nodes if not state.node.image_volumes)
    return any(map(suitable, nodes)) and not any(map(suitable, without))
