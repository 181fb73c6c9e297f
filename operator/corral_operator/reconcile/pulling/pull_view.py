"""Whether a Model's remote sources are to be pulled now, and what its status says of the pull."""

from __future__ import annotations

from dataclasses import replace

from corral_core.contracts.source_resolution import SourceResolution
from corral_core.model.remote_sources import pulled_in_pod
from corral_core.planning.snapshot import Decision
from corral_operator.observe.cluster_state import ClusterState
from corral_operator.observe.objects import ModelObject
from corral_operator.observe.pod_failures import ContainerState, PodFailure
from corral_operator.observe.pulling.puller import Puller
from corral_operator.observe.pulling.sources import expected_snapshots
from corral_operator.reconcile.pulling.restarts import start_blocked, unresolved, updating
from corral_operator.report.view import PullView


def pull_wanted(state: ClusterState, item: ModelObject, decision: Decision | None, *, now: float) -> bool:
    """Return whether remote sources are to be pulled at ``now``; not if no node could run the Model."""
    model = item.model
    if decision is None or model is None or decision.failure is not None or model.spec.suspend:
        return False
    if model.spec.update_policy == "OnRestart" and state.update(item.meta.key) is not None:
        return updating(state, item)
    kept = max(model.spec.min_replicas, model.spec.replicas or 0)
    return model.spec.prefetch or kept > 0 or state.demand_tracker.weights_wanted(item.meta.key, now)


def pull_view(state: ClusterState, item: ModelObject, *, wanted: bool, now: float) -> PullView | None:
    """Return the pull of the Model at ``now``, None without remote sources."""
    if not item.remote:
        return None
    key, source = item.meta.key, state.source(item.meta.key)
    if item.model is not None and pulled_in_pod(item.model.spec):
        view = _view_of_pods(state, item)
    else:
        puller, rejected = state.puller(key), state.pull_failures.get(key)
        view = PullView(source, state.update(key), wanted=wanted, puller=puller, rejected=rejected)
        view = replace(view, mounted=state.mounted_image(key))
    view = replace(
        view,
        not_updated=_not_updated(state, key) if item.inspected else None,
        holds_start=start_blocked(state, item, now) is not None,
        replaced=source is not None and not _settled(state, key, source),
    )
    if view.puller is not None:
        view = replace(view, status=state.pull_statuses.get(view.puller.meta.uid))
    if item.model is not None and item.model.spec.suspend:
        return replace(view, postponed="nothing is pulled: spec.suspend is true")
    if item.model is not None and item.model.spec.prefetch and not view.in_pods:
        return replace(view, postponed="nothing is pulled: no node can run the Model")
    return view


def _not_updated(state: ClusterState, key: str) -> PodFailure | None:
    """Return why a pulled source may have a newer version: it cannot be resolved again, or that one was not pulled."""
    inspector = state.inspector(key)
    failure = (inspector.failure if inspector is not None else None) or state.inspection_failures.get(key)
    return unresolved(failure.message) if failure is not None else state.start_failures.get(key)


def _settled(state: ClusterState, key: str, source: SourceResolution) -> bool:
    """Return whether all runners have the snapshots of the source, and none is replaced."""
    expected = set(expected_snapshots(source).values())
    return all(each.settled and set(each.snapshots) == expected for each in state.deployments.of_model(key))


def _view_of_pods(state: ClusterState, item: ModelObject) -> PullView:
    """Return the view of the pulls in the runner pods."""
    pods = sorted(state.pods.of_model(item.meta.key), key=lambda pod: pod.created)
    staying = [pod for pod in pods if pod.pull is not None and not pod.meta.deleted and not pod.finished]
    newest = next((pod for pod in reversed(staying) if pod.pulling), None)
    puller = None
    if newest is not None:
        puller = Puller(newest, "", failure=newest.failure, running=newest.pull is ContainerState.RUNNING)
    return PullView(
        state.source(item.meta.key),
        wanted=puller is not None,
        postponed="each runner pod pulls the weights when it starts: spec.cache.type is ephemeral",
        puller=puller,
        in_pods=True,
        pods_pulled=bool(staying) and puller is None,
    )
