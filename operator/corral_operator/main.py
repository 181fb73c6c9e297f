"""The operator process: who starts and ends what, in which order.

Start: settings, credentials, HTTP, the Lease, the first listing, then the watches, the workers and the slow resync.
End, by a signal or because one of them failed: the workers stop first, so that nothing is written any more, then the
watches and the activity streams, the Lease is given up, and HTTP ends last. Whatever failed ends the process with
status 1; it is to be started again, and carries on from what it observes. Only losing the Lease, as in a long outage of
the API server, is dealt with inside: everything is torn down, and begins anew once the Lease is held again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Coroutine
from typing import Any

from corral_core.activity import Activity
from corral_core.errors import CorralError, InvalidSetting
from corral_core.jsonfields import Json
from corral_kube.client import Kube, connect
from corral_operator import logs, web
from corral_operator.activity import Streams
from corral_operator.actor import Actor
from corral_operator.config import FIELD_MANAGER, OperatorConfig, from_environment
from corral_operator.controller import PLAN, Controller
from corral_operator.handlers import DEPLOYMENTS, MODELS, PODS, SERVICES, Watches
from corral_operator.health import Health
from corral_operator.inspection import Inspection
from corral_operator.lease import Lease, LeaseLost
from corral_operator.lister import Lister
from corral_operator.lost import LostPods
from corral_operator.metrics import Measures
from corral_operator.observe import RunnerInfo, Store
from corral_operator.reporter import Reporter
from corral_operator.surroundings import Surroundings
from corral_operator.workqueue import WorkQueue


class Operator:
    """The parts put together, for one term of holding the Lease.

    ``run`` returns after ``stop`` was set, or raises what failed: LeaseLost when the term is over.
    """

    def __init__(self, kube: Kube, config: OperatorConfig, health: Health, measures: Measures | None = None) -> None:
        self._kube = kube
        self._measures = measures = measures or Measures()
        self._health = health
        self._config = config
        self._lease = Lease(kube, config.lease)
        self._store = Store()
        self._queue = WorkQueue(measures.queue)
        self._owners: dict[str, str] = {}
        self._streams: Streams | None = None
        inspection = Inspection(kube, self._store, config.runner, limit=config.inspectors, wake=self._queue.add_after)
        self._controller = Controller(
            self._store,
            self._queue,
            policy=config.policy,
            actor=Actor(kube, self._store, config.runner, inspection),
            reporter=Reporter(kube, self._store, config.runner),
            may_act=self._lease.held,
            measures=measures,
        )
        self._surroundings = Surroundings(
            kube, self._store.nodes, namespaces=config.namespaces, changed=self._controller.surrounded
        )
        self._lister = Lister(kube, self._store, namespaces=config.namespaces, changed=self._changed, clock=time.time)

    async def run(self, stop: asyncio.Event) -> None:
        self._health.begin(self._queue, self._lease.stands_by)
        self._measures.begin(self._queue, self._store)
        try:
            await self._term(stop)
        finally:
            self._health.end()
            self._measures.end()

    async def _term(self, stop: asyncio.Event) -> None:
        if not await _unless(stop, self._lease.acquire()):
            return
        watches = Watches(self._hear, await self._kube.credentials(), self._config.namespaces)
        self._streams = Streams(self._heard, self._told)
        try:
            await self._act(stop, watches)
        finally:
            self._queue.close()
            await watches.stop()
            await self._streams.close()
            await self._lease.release()

    async def _act(self, stop: asyncio.Event, watches: Watches) -> None:
        async with _Tasks(stop) as tasks:
            tasks.start(self._lease.hold())
            if not await _unless(stop, self._lister.first()):
                return
            if not await self._look_around(stop, tasks):
                return
            self._follow()
            watches.start()
            tasks.start(watches.ended())
            tasks.start(self._lister.run(self._config.resync))
            tasks.start(LostPods(self._kube, self._store, alive=self._store.nodes.alive).run())
            for _ in range(self._config.workers):
                tasks.start(self._controller.work())
            self._queue.add(PLAN)
            self._health.act()
            self._measures.act()
            logs.event("ready")
            await tasks.wait()

    async def _look_around(self, stop: asyncio.Event, tasks: _Tasks) -> bool:
        """Knows the nodes, where they may be known, before anything is decided; False when told to stop."""
        if self._surroundings.allowed is None and not await _unless(stop, self._surroundings.ask()):
            return False
        if not self._surroundings.allowed:
            return True
        tasks.start(self._surroundings.run())
        return await _unless(stop, self._surroundings.listed())

    def _changed(self, model: str) -> None:
        self._follow()
        self._controller.changed(model)

    def _hear(self, kind: str, event: str | None, raw: Json) -> None:
        """One event of a watch."""
        if event is None:
            self._lister.soon()
        said = event or "LISTED"
        model = None
        if kind == MODELS:
            model = self._store.heard_model(raw, kind=said, now=time.time())
        elif kind == DEPLOYMENTS:
            model = self._store.heard_deployment(raw, kind=said)
        elif kind == SERVICES:
            model = self._store.heard_service(raw, kind=said)
        elif kind == PODS:
            model = self._store.heard_pod(raw, kind=said)
        if model is None:
            return
        if kind == PODS:
            self._follow()
        self._controller.changed(model)

    def _follow(self) -> None:
        """One stream of activity for every runner pod that has an address."""
        pods = [pod for pod in self._store.pods.all() if pod.ip and not pod.finished]
        self._owners = {pod.meta.uid: pod.meta.model for pod in pods}
        if self._streams is not None:
            self._streams.follow({pod.meta.uid: pod.ip for pod in pods})
        self._store.forget_runners()

    def _heard(self, runner: str, activity: Activity | None) -> None:
        if runner in self._owners:
            self._controller.heard(self._owners[runner], runner, activity)

    def _told(self, runner: str, info: RunnerInfo) -> None:
        if runner in self._owners:
            self._controller.told(self._owners[runner], runner, info)


class _Tasks:
    """Tasks that end with a block; ``wait`` returns when told to stop, and raises what one of them raised."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> _Tasks:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.create_task(coroutine))

    async def wait(self) -> None:
        self.start(self._until_stopped())
        done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()

    async def _until_stopped(self) -> None:
        await self._stop.wait()


async def _unless(stop: asyncio.Event, coroutine: Coroutine[Any, Any, None]) -> bool:
    """Awaits the coroutine; False when told to stop before it is done."""
    task, stopped = asyncio.create_task(coroutine), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            return False
        task.result()
        return True
    finally:
        for waiting in (task, stopped):
            waiting.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)


async def _serve(config: OperatorConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    health = Health()
    kube = await connect(config.kubeconfig, manager=FIELD_MANAGER)
    measures = Measures(kube.calls)
    try:
        async with web.serving(web.pages(health, measures), config.http_port):
            while not stop.is_set():
                try:
                    await Operator(kube, config, health, measures).run(stop)
                except LeaseLost as error:
                    logs.event("lease_lost", level=logging.ERROR, error=str(error))
    finally:
        await kube.close()


def main() -> None:
    """``corral-operator``."""
    try:
        config = from_environment(os.environ)
    except InvalidSetting as error:
        sys.exit(f"corral-operator: {error}")
    logs.configure(config.log_level)
    try:
        asyncio.run(_serve(config))
    except (CorralError, RuntimeError, OSError) as error:
        logs.event("failed", level=logging.CRITICAL, error=str(error), cause=repr(error.__cause__))
        sys.exit(1)
    logs.event("exit")
