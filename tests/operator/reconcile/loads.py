"""Choices of load configs in tests: the Model and nodes in a cluster state."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from corral_core.base.json_fields import JsonObject, get_objects
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.model.model import Model
from corral_operator.config import RunnerDefaults
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.reconcile.planning.load_choice import choose_load
from corral_operator.reconcile.runner_pod import pod_spec
from corral_operator.report.load import LoadChoice
from tests.operator import samples


def cluster_with(
    model: Model, metadata: ModelMetadata = samples.METADATA, nodes: Iterable[Mapping[str, object]] = ()
) -> ClusterState:
    """Return a state with the Model, the metadata of its weights and the nodes."""
    state = ClusterState()
    spec = model.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    known = {**metadata.to_json(), "source": samples.SOURCE}
    state.replace(Kind.MODELS, [samples.model(model.name, spec=spec, status={"model": known})], "10")
    state.replace(Kind.NODES, list(nodes), "10")
    state.replace(Kind.OTHER_PODS, [], "10")
    return state


def chosen_load(
    model: Model,
    metadata: ModelMetadata = samples.METADATA,
    *,
    defaults: RunnerDefaults | None = None,
    nodes: Iterable[Mapping[str, object]] = (),
) -> LoadChoice:
    state = cluster_with(model, metadata, nodes)
    return choose_load(state, model, defaults=defaults or RunnerDefaults(), current=None)


def container(
    model: Model, metadata: ModelMetadata = samples.METADATA, *, defaults: RunnerDefaults | None = None
) -> JsonObject:
    """Return the container of a runner with the load that is chosen without nodes."""
    defaults = defaults or RunnerDefaults()
    load = chosen_load(model, metadata, defaults=defaults)
    return get_objects(pod_spec(model, load.estimate, defaults=defaults, gpus=load.gpus), "containers")[0]
