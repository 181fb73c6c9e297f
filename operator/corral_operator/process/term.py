"""One term of leadership: from the election until the Lease is lost or the process stops.

Start order: the Lease, the first lists, the nodes, the watches, the workers and the periodic tasks. Stop order: the
workers first, so that nothing is written any more, then the watches and the runner status streams, then the Lease.

All writes but those of the Lease itself are fenced by it: none begins when the Lease is lost, and one that has begun is
given up before another replica may become the leader.
"""

from __future__ import annotations

import asyncio

from corral_core.contracts.pull_status import PullStatus
from corral_core.contracts.runner_status import RunnerStatus
from corral_core.model.model import Model
from corral_kube.client import KubeClient
from corral_operator import logs
from corral_operator.config import OperatorConfig
from corral_operator.observe.cluster_state import ClusterState, StateChange
from corral_operator.observe.cluster_watch import ClusterWatch
from corral_operator.observe.dra_watch import DraWatch
from corral_operator.observe.feed import StateFeed
from corral_operator.observe.kopf_watch import KopfWatches
from corral_operator.observe.pod_failures import ContainerState
from corral_operator.observe.resync import Resync
from corral_operator.observe.streams.pod_streams import FollowedPod, pod_url
from corral_operator.observe.streams.pull_progress import PullProgressStreams
from corral_operator.observe.streams.runner_info import RunnerInfo
from corral_operator.observe.streams.runner_status import RunnerStatusStreams
from corral_operator.process.health import Health
from corral_operator.process.lease import Lease
from corral_operator.process.metrics import OperatorMetrics
from corral_operator.process.other_installations import OtherInstallations
from corral_operator.process.tasks import TaskScope, unless_stopped
from corral_operator.reconcile.applier import Applier
from corral_operator.reconcile.controller import Controller
from corral_operator.reconcile.demand_cleanup import DemandCleanup
from corral_operator.reconcile.failed_devices import FailedDevices
from corral_operator.reconcile.inspection import Inspection
from corral_operator.reconcile.orphaned_pods import OrphanedPods
from corral_operator.reconcile.planning.current_plan import PLAN_KEY
from corral_operator.reconcile.planning.load_choice import choose_load
from corral_operator.reconcile.pulling.pulls import Pulls
from corral_operator.reconcile.rollouts import Rollouts
from corral_operator.reconcile.work_queue import WorkQueue
from corral_operator.report.event_recorder import EventRecorder
from corral_operator.report.load import LoadChoice
from corral_operator.report.status_writer import StatusWriter


class Term:
    """Wires the parts of the operator together. ``run`` is called once."""

    def __init__(self, kube: KubeClient, config: OperatorConfig, health: Health, metrics: OperatorMetrics) -> None:
        self._kube = kube
        self._config = config
        self._health = health
        self._metrics = metrics
        self._lease = Lease(kube, config.lease)
        self._writer = kube.fenced(self._lease.remaining)
        self._installations = OtherInstallations(self._writer, config.lease, created=lambda: self._lease.created)
        self._state = ClusterState(
            shared_namespaces=config.shared_namespaces, pools=config.pools, unreadable=kube.calls.unreadable
        )
        self._queue = WorkQueue(metrics.queue)
        self._feed = StateFeed(self._state, self._state_changed)
        self._resync = Resync(kube, self._feed, namespaces=config.namespaces)
        self._cluster_watch = ClusterWatch(kube, self._feed, namespaces=config.namespaces)
        self._dra_watch = DraWatch(kube, self._feed)
        self._model_of_runner: dict[str, str] = {}
        self._model_of_puller: dict[str, str] = {}
        self._streams: RunnerStatusStreams | None = None
        self._pull_streams: PullProgressStreams | None = None
        self._recorder = EventRecorder(self._writer)
        self._controller = self._make_controller()

    async def run(self, stop: asyncio.Event) -> None:
        """Return after ``stop`` was set. Raises LeaseLost when the term is over, or the error of a task."""
        self._health.begin_election(self._queue, self._lease.standby)
        self._metrics.begin_election(self._queue, self._state)
        try:
            if await unless_stopped(stop, self._lease.acquire()):
                await self._lead(stop)
        finally:
            self._health.end_term()
            self._metrics.end_term()

    async def _lead(self, stop: asyncio.Event) -> None:
        credentials = await self._kube.credentials()
        namespaces = self._config.namespaces
        watches = KopfWatches(self._feed, credentials, namespaces=namespaces, relisted=self._resync.request)
        self._streams = RunnerStatusStreams(self._runner_status_changed, self._runner_loaded)
        self._pull_streams = PullProgressStreams(self._pull_progressed)
        try:
            await self._run_tasks(stop, watches)
        finally:
            self._queue.close()
            await watches.stop()
            await self._streams.close()
            await self._pull_streams.close()
            await self._installations.close()
            await self._lease.release()

    async def _run_tasks(self, stop: asyncio.Event, watches: KopfWatches) -> None:
        async with TaskScope(stop) as tasks:
            tasks.start(self._lease.hold())
            if not await unless_stopped(stop, self._resync.list_first()):
                return
            if not await self._sync_nodes(stop, tasks):
                return
            watches.start()
            tasks.start(watches.ended())
            tasks.start(self._resync.run(self._config.resync_period))
            tasks.start(DemandCleanup(self._writer, self._state).run(self._config.resync_period))
            tasks.start(OrphanedPods(self._writer, self._state).run())
            tasks.start(FailedDevices(self._writer, self._state, self._metrics.plans, self._recorder).run())
            for _ in range(self._config.workers):
                tasks.start(self._controller.run_worker())
            self._queue.add(PLAN_KEY)
            self._health.begin_leading()
            self._metrics.begin_leading()
            logs.event("ready")
            await tasks.wait()

    async def _sync_nodes(self, stop: asyncio.Event, tasks: TaskScope) -> bool:
        """List the nodes before the first plan, if they may be read; return False if the stop event comes first."""
        if not await unless_stopped(stop, self._cluster_watch.check_access()):
            return False
        if not self._cluster_watch.allowed:
            return True
        tasks.start(self._cluster_watch.run())
        if not await unless_stopped(stop, self._dra_watch.check_access()):
            return False
        if self._dra_watch.available:
            tasks.start(self._dra_watch.run())
            if not await unless_stopped(stop, self._dra_watch.wait_synced()):
                return False
        return await unless_stopped(stop, self._cluster_watch.wait_synced())

    def _make_controller(self) -> Controller:
        kube, state, config = self._writer, self._state, self._config
        inspection = Inspection(kube, state, config.runner, limit=config.max_inspectors, requeue=self._queue.add_after)
        pulls = Pulls(kube, state, config.runner, requeue=self._queue.add_after)
        rollouts = Rollouts(state, timeout=config.runner.load_timeout, requeue=self._queue.add_after)
        return Controller(
            state,
            self._queue,
            policy=config.policy,
            applier=Applier(kube, state, config.runner, inspection, pulls=pulls, rollouts=rollouts),
            status_writer=StatusWriter(kube, state, self._recorder, installation=config.lease.installation),
            installations=self._installations,
            load=self._load,
            leading=self._lease.held,
            metrics=self._metrics.plans,
        )

    def _load(self, model: Model) -> LoadChoice:
        current = next(iter(self._state.deployments.of_model(model.key)), None)
        return choose_load(self._state, model, defaults=self._config.runner, current=current)

    def _state_changed(self, change: StateChange) -> None:
        if change.pods:
            self._follow_runners()
            self._follow_pullers()
        self._controller.state_changed(change)

    def _follow_runners(self) -> None:
        """Keep one status stream for every runner pod that has an address, once its weights are pulled."""
        pods = [pod for pod in self._state.pods.all() if pod.ip and not pod.finished and not pod.pulling]
        self._model_of_runner = {pod.meta.uid: pod.meta.model for pod in pods}
        if self._streams is not None:
            self._streams.follow({pod.meta.uid: FollowedPod(pod_url(pod.ip), pod.meta.model) for pod in pods})
        self._state.forget_runners()

    def _follow_pullers(self) -> None:
        """Keep one progress stream for every pod that pulls and has an address."""
        pods = [each.pod for each in self._state.pullers.all() if each.running]
        pods += [pod for pod in self._state.pods.all() if pod.pull is ContainerState.RUNNING]
        pods = [pod for pod in pods if pod.ip and not pod.finished]
        self._model_of_puller = {pod.meta.uid: pod.meta.model for pod in pods}
        if self._pull_streams is not None:
            self._pull_streams.follow({pod.meta.uid: FollowedPod(pod_url(pod.ip), pod.meta.model) for pod in pods})

    def _pull_progressed(self, puller: str, status: PullStatus) -> None:
        if puller in self._model_of_puller:
            self._controller.pull_progressed(self._model_of_puller[puller], puller, status)

    def _runner_status_changed(self, runner: str, status: RunnerStatus | None) -> None:
        if runner in self._model_of_runner:
            self._controller.runner_status_changed(self._model_of_runner[runner], runner, status)

    def _runner_loaded(self, runner: str, info: RunnerInfo) -> None:
        if runner in self._model_of_runner:
            self._controller.runner_loaded(self._model_of_runner[runner], runner, info)
