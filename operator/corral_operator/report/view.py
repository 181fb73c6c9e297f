"""View of one Model: everything that its status depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.contracts.pull_status import PullStatus
from corral_core.contracts.runner_status import Offload
from corral_core.contracts.source_resolution import SourceResolution
from corral_core.model.name_index import LostName
from corral_core.planning.snapshot import Decision
from corral_core.weights.memory_estimate import MemoryEstimate
from corral_operator.observe.inspector import Inspector
from corral_operator.observe.objects import ModelObject, PodObject
from corral_operator.observe.pod_failures import PodFailure
from corral_operator.observe.pulling.image_volumes import MountedImage
from corral_operator.observe.pulling.puller import Puller
from corral_operator.observe.streams.runner_info import RunnerInfo
from corral_operator.report.load import UNKNOWN_LOAD, LoadChoice
from corral_operator.report.pod_failure_messages import runner_failure
from corral_operator.report.usage import UNKNOWN_USAGE, Usage


@dataclass(frozen=True, slots=True)
class PullView:
    """Pull of a Model's remote sources. ``source`` is what they were resolved to; with snapshots if they are pulled.

    ``update`` is a new version that is to be pulled beside the pulled one, and ``not_updated`` says why a pulled source
    may have a newer version. ``wanted``: they are to be pulled now, and if not, ``postponed`` says why. ``puller`` is
    the pod that pulls them and ``status`` its progress; ``rejected`` says why the API server accepts no claim or no
    pod. ``holds_start``: the start of a pulled Model waits for its source. ``replaced``: the runners have another
    version than the pulled one, or start.

    ``in_pods``: each runner pod pulls them when it starts, and ``puller`` is the newest one that does;
    ``pods_pulled``: all of them have. With ``mounted``, an image that the runners mount, nothing is pulled before their
    start.
    """

    source: SourceResolution | None = None
    update: SourceResolution | None = None
    not_updated: PodFailure | None = None
    wanted: bool = True
    postponed: str = "the weights are pulled at the first request or /api/pull: spec.prefetch is false"
    puller: Puller | None = None
    status: PullStatus | None = None
    rejected: PodFailure | None = None
    in_pods: bool = False
    pods_pulled: bool = False
    holds_start: bool = False
    replaced: bool = False
    mounted: MountedImage | None = None

    @property
    def pulled(self) -> bool:
        """Whether nothing is left to pull."""
        pulled = self.pods_pulled or self.mounted is not None
        return self.source is not None and (pulled or bool(self.source.snapshots))


@dataclass(frozen=True, slots=True)
class ModelView:
    """``decision`` is None for a Model that is not valid; ``rejection`` says why a valid one is not served.

    ``names`` are those by which every client reaches a valid Model, ``lost_names`` those of its spec that do not.
    ``offload`` is what the loaded runner has on GPUs, None if it does not say so.
    ``pods`` are those that have not terminated, the newest last; ``rejected_pod`` says why the API server creates none,
    and ``rejected_object`` why it refuses the Deployment or another object of the Model.
    ``metadata`` is of the weights that the Model names now, ``inspector`` is the pod that reads it, ``load`` how a
    runner loads and the memory that it needs. ``usage`` is that of its ready runners, ``pending`` is the number of
    pending requests as the gateways report it.
    ``pull`` is None for a Model without remote sources.
    """

    item: ModelObject
    decision: Decision | None
    rejection: str | None = None
    names: Sequence[str] = ()
    lost_names: Sequence[LostName] = ()
    pods: Sequence[PodObject] = ()
    info: RunnerInfo | None = None
    usage: Usage = UNKNOWN_USAGE
    pending: int = 0
    rejected_pod: PodFailure | None = None
    rejected_object: PodFailure | None = None
    metadata: ModelMetadata | None = None
    inspector: Inspector | None = None
    load: LoadChoice = UNKNOWN_LOAD
    offload: Offload | None = None
    pull: PullView | None = None

    @property
    def estimate(self) -> MemoryEstimate | None:
        """The memory that a runner needs, None while that is not known."""
        return self.load.estimate

    @property
    def staying(self) -> list[PodObject]:
        """The pods that are not being deleted."""
        return [pod for pod in self.pods if not pod.meta.deleted]

    @property
    def ready(self) -> int:
        """The number of ready pods."""
        return sum(1 for pod in self.staying if pod.ready)

    @property
    def failure(self) -> PodFailure | None:
        """Why the Model does not serve: a rejected object, or the failure of the newest pod if all pods fail."""
        if self.rejected_object is not None and not self.ready:
            return self.rejected_object
        failures = [runner_failure(pod, self.estimate) for pod in self.staying]
        if not failures:
            return self.rejected_pod
        return failures[-1] if all(failures) else None

    @property
    def uninspected(self) -> bool:
        """Whether the header of the weights must be read before a runner can start."""
        return self.metadata is None and not self.pods

    @property
    def unpulled(self) -> bool:
        """Whether remote sources must be pulled before a runner pod can start."""
        return self.pull is not None and not self.pull.in_pods and not self.pull.pulled and not self.pods

    @property
    def pulling(self) -> bool:
        """Whether a runner pod pulls its weights."""
        return self.pull is not None and self.pull.in_pods and self.pull.puller is not None
