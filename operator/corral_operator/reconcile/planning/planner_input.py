"""The planner's input: a snapshot of the cluster state as plain values of ``corral_core``."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import replace

from corral_core.model.model import Model
from corral_core.planning.node import Node
from corral_core.planning.plan_memory import PlanMemory
from corral_core.planning.snapshot import ModelState, Policy, Replica, Snapshot
from corral_operator.observe.cluster_state import ClusterState
from corral_operator.observe.objects import PodObject
from corral_operator.reconcile.pulling.restarts import observe_start, start_blocked


def planner_snapshot(
    state: ClusterState,
    policy: Policy,
    now: float,
    *,
    memory: PlanMemory,
    drained_before: Callable[[str], bool],
    errors: MutableMapping[str, Exception],
) -> Snapshot:
    """Return the snapshot, completed from ``memory``.

    ``drained_before`` tells whether a Model without a plan drained by the decision of an earlier process. A Model that
    cannot be converted is left out; ``errors`` gets its error.
    """
    nodes = state.nodes()
    models: list[ModelState] = []
    for model in state.valid_models():
        if model.key in state.left_models:
            continue
        try:
            models.append(memory.complete(_model_state(state, model, now), draining=drained_before(model.key)))
        except Exception as error:  # of any kind: the other Models must be planned
            errors[model.key] = error
    policy = replace(policy, gpus=state.gpus()) if nodes else policy
    return Snapshot(tuple(models), policy, nodes, state.pools.node)


def possible_nodes(state: ClusterState) -> list[Node]:
    """Return the present nodes and a new one of each pool; none before nodes and pods were listed."""
    present = [known.node for known in state.nodes()]
    return [*present, *(pool.node for pool in state.pools.node)] if present else []


def _model_state(state: ClusterState, model: Model, now: float) -> ModelState:
    deployments = state.deployments.of_model(model.key)
    # A pod without a node holds no resources yet, and can be removed at once when no request is pending any more.
    pods = [pod for pod in state.pods.of_model(model.key) if pod.scheduled and not pod.finished]
    return ModelState(
        key=model.key,
        created=model.created,
        spec=model.spec,
        desired=sum(deployment.replicas for deployment in deployments if not deployment.meta.deleted),
        replicas=tuple(_replica(state, pod) for pod in pods),
        demand=state.demand_tracker.demand(model.key, now),
        rejection=None if pods else _not_inspected(state, model.key),
        requirements=state.requirements(model.key),
        not_pulled=_not_pulled(state, model.key, now),
    )


def _not_pulled(state: ClusterState, model: str, now: float) -> str | None:
    """Return why the weights that the next runner is to load are not there, None if they are."""
    item = state.models.get(model)
    if item is None or not state.pulled(model):
        return "the weights are not pulled yet"
    observe_start(state, item, now)
    return start_blocked(state, item, now)


def _not_inspected(state: ClusterState, model: str) -> str | None:
    """Return why the Model cannot start while the metadata of its weights is not known; None if it is."""
    if state.metadata(model) is not None:
        return None
    inspector = state.inspector(model)
    if inspector is None and model in state.inspection_failures:
        return state.inspection_failures[model].message
    if inspector is None:
        return "the header of the weights must be read before the first start"
    return inspector.failure.message if inspector.failure else "an inspector pod reads the header of the weights"


def _replica(state: ClusterState, pod: PodObject) -> Replica:
    progress, times = state.load_progress.get(pod.meta.uid), state.pod_times.of(pod)
    return Replica(
        name=pod.name,
        ready=pod.ready,
        terminating=pod.meta.deleted,
        started_at=times.seen_at,
        status=state.runner_statuses.get(pod.meta.uid),
        ready_since=times.ready_since,
        node=pod.node,
        requests=pod.requests,
        progress_at=progress.progress_at if progress is not None else None,
    )
