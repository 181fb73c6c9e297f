"""``corral serve``: gateway, planner and runners on one machine, in one event loop with child processes.

Shutdown order: the server stops accepting; running and pending requests are served to their end, while planner and
runners continue; then planner and file watch end; then the runners get SIGTERM and are waited for. A second signal ends
everything at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import uvicorn
import uvloop

from corral_core.base.errors import CorralError
from corral_core.sources.locate import WeightsRoots
from corral_core.sources.snapshot import Snapshot
from corral_core.sources.uri import shown_uri
from corral_server.gateway.app import Gateway
from corral_server.gateway.observability.monitoring import metrics_server, open_observers
from corral_server.gateway.observability.request_metrics import RequestObserver
from corral_server.gateway.server import GatewayServer, raise_open_file_limit, uvicorn_config
from corral_server.local.config import LocalConfig
from corral_server.local.controller import LocalController
from corral_server.local.directory import LocalDirectory
from corral_server.local.event_log import EventLog, LoggingBridge
from corral_server.local.files import ListedModel, ModelFiles, ModelListing, held_back
from corral_server.local.management.management import LocalManagement, prepare_folder, served_paths
from corral_server.local.pulls.known_snapshots import HeldSnapshots, latest_snapshots
from corral_server.local.pulls.pull_log import PullLog
from corral_server.local.pulls.pulls import LocalPulls
from corral_server.local.pulls.source_polls import SourcePolls
from corral_server.local.pulls.source_restarts import SourceRestarts
from corral_server.local.pulls.sources import LocalSources
from corral_server.local.runners.supervisor import Supervisor
from corral_server.local.watch import Refresh, log_changes, watch
from corral_server.system.machine_memory import memory_for_runners

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class CannotServe(CorralError):
    """No Model file can be served, or the address cannot be bound."""


def serve(config: LocalConfig, paths: Sequence[Path], log: EventLog) -> None:
    """Serve until a signal. Raises CannotServe."""
    logging.basicConfig(level=logging.WARNING, handlers=[LoggingBridge(log)], force=True)
    sources = LocalSources(config.pulls)
    known = latest_snapshots(sources.store)
    mode = _LocalMode(config, paths, log, sources=sources, known=known)
    listing = first_listing(mode.files, paths)
    raise_open_file_limit()
    listener = bind(config.gateway.host, config.gateway.port)
    prepare_folder(config.management.folder, log, policy=config.management.policy.create)
    with contextlib.closing(listener), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(mode.run(listing, listener))


def first_listing(files: ModelFiles, named: Sequence[Path]) -> ModelListing:
    """Read all Model files. Raises CannotServe if one of ``named`` does not exist or a named file is invalid."""
    for path in named:
        if not path.exists():
            raise CannotServe(f"no such file or folder: {path}")
    listing = files.read()
    for path, problem in listing.problems.items():
        if path in named:
            raise CannotServe(f"{path}: {problem}")
    return listing


def bind(host: str, port: int) -> socket.socket:
    """Return a bound socket; port 0 picks a free port. Raises CannotServe."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise CannotServe(f"cannot listen on {host} port {port}: {error.strerror or error}") from error


def poll_intervals(models: Sequence[ListedModel]) -> dict[str, float]:
    """Return the seconds after which each pulled source is polled: the shortest of the Models that have it."""
    intervals: dict[str, float] = {}
    for listed in models:
        seconds = listed.model.spec.poll_seconds
        for uri in listed.weights.snapshots if seconds is not None and not listed.model.spec.suspend else ():
            intervals[uri] = min(seconds or 0.0, intervals.get(uri, float("inf")))
    return intervals


class _LocalMode:
    """One run of local mode: its parts and their order."""

    def __init__(
        self,
        config: LocalConfig,
        paths: Sequence[Path],
        log: EventLog,
        *,
        sources: LocalSources,
        known: Mapping[str, Snapshot],
    ) -> None:
        self._config = config
        self._log = log
        self._pulls = LocalPulls(sources.puller, known, PullLog(log), self._source_changed, complete=sources.store_has)
        self._polls = SourcePolls(self._pulls.update, self._poll_failed)
        self._restarts = SourceRestarts(
            self._pulls.update, self._pulls.snapshot, failed=self._update_failed, changed=self._request_plan
        )
        self._refresh = Refresh()
        self._held = HeldSnapshots(config.pulls.store)
        roots = WeightsRoots(config.runner.pvc_root, store=config.pulls.store)
        self.files = ModelFiles(served_paths(paths, config.management.folder), roots, self._pulls.snapshot)
        self._management = LocalManagement(
            config.management,
            sources.store,
            log,
            files=self.files,
            refresh=self._refresh,
            forget=self._pulls.forget,
        )
        self._supervisor = Supervisor(config.runner, log, self._runner_changed)
        self._directory = LocalDirectory(self._supervisor, log, self._request_plan, pull=self._pulls.state)
        self._controller = LocalController(
            self._directory,
            self._supervisor,
            config.policy,
            log,
            capacity=memory_for_runners,
            environ=config.runner.environment,
            store=config.pulls.store,
            restarts=self._restarts,
        )

    async def run(self, listing: ModelListing, listener: socket.socket) -> None:
        log_changes(self._log, listing, None)
        self._apply(listing)
        monitoring, environ = self._config.monitoring, self._config.runner.environment
        try:
            async with open_observers(monitoring, environ, write=self._log.event) as observers:
                await self._run(listing, listener, observers)
        finally:
            await self._polls.close()
            await self._restarts.close()
            await self._pulls.close()
            self._held.hold(())
        self._log.event("ended")

    async def _run(self, listing: ModelListing, listener: socket.socket, observers: Sequence[RequestObserver]) -> None:
        management = self._management.gateway
        gateway = Gateway(self._directory, self._config.gateway, observers=observers, management=management)
        config, drain_delay = uvicorn_config(gateway, self._config.gateway), self._config.gateway.drain_delay
        server = _LocalServer(config, gateway, drain_delay=drain_delay, started=lambda: self._started(listener))
        monitors = metrics_server(self._config.monitoring, self._config.gateway.host, gateway.families, server.families)
        with self._signals(server):
            async with monitors, self._supervisor:
                await self._serve(server, listing, listener)
                self._log.event("ending")

    async def _serve(self, server: uvicorn.Server, listing: ModelListing, listener: socket.socket) -> None:
        """Serve until the server has shut down; the planner runs until then."""
        async with asyncio.TaskGroup() as group:
            tasks = (
                group.create_task(self._controller.run(), name="planner"),
                group.create_task(
                    watch(self.files, self._log, self._apply, last=listing, refresh=self._refresh), name="watch"
                ),
                group.create_task(self._management.run(), name="removal of weights"),
            )
            await server.serve(sockets=[listener])
            for task in tasks:
                task.cancel()

    def _apply(self, listing: ModelListing) -> None:
        served = {listed.model.key: listed for listed in self._directory.listed()}
        models = held_back(listing.models, served)
        at_start = not self._directory.synced()
        self._directory.replace(models)
        self._want_sources()
        self._polls.set(poll_intervals(models), at_once=at_start)
        pulled = {id for listed in models for id in listed.weights.snapshots.values()}
        self._held.hold(pulled | self._management.applied(models))

    def _want_sources(self) -> None:
        """Pull what the Models need: when they are listed, or at the first request to those without prefetch."""
        listed = [each for each in self._directory.listed() if each.pulling and self._pulls_now(each)]
        self._pulls.want({uri for each in listed for uri in each.pulling})

    def _pulls_now(self, listed: ListedModel) -> bool:
        spec = listed.model.spec
        asked = spec.prefetch or spec.min_replicas > 0 or self._directory.pull_wanted(listed.model.key)
        begun = listed.servable or any(self._pulls.state(uri) for uri in listed.pulling)
        return not spec.suspend and (asked or begun)

    def _poll_failed(self, uri: str, reason: str, seconds: float) -> None:
        self._log.problem("poll_failed", source=shown_uri(uri), reason=reason, retry_s=seconds)

    def _update_failed(self, uri: str, reason: str) -> None:
        self._log.problem("update_failed", source=shown_uri(uri), reason=reason)

    def _source_changed(self, uri: str) -> None:
        self._directory.source_changed(uri)
        if self._pulls.snapshot(uri) is not None:
            self._refresh.request()

    def _runner_changed(self, key: str) -> None:
        self._directory.changed(key)

    def _request_plan(self) -> None:
        self._want_sources()
        self._controller.request_plan()

    def _started(self, listener: socket.socket) -> None:
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        names = [entry.names[0] for entry in self._directory.entries()]
        scheme = "https" if self._config.gateway.tls else "http"
        self._log.event("listening", url=f"{scheme}://{shown}:{port}", host=host, port=port, models=names)

    @contextlib.contextmanager
    def _signals(self, server: uvicorn.Server) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in SIGNALS:
            loop.add_signal_handler(number, self._on_signal, server, number)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    def _on_signal(self, server: uvicorn.Server, number: signal.Signals) -> None:
        again = server.should_exit
        self._log.event("signal", signal=number.name, meaning="ends at once" if again else "ends after its requests")
        server.should_exit = True
        if again:
            server.force_exit = True
            self._supervisor.kill()


class _LocalServer(GatewayServer):
    """The server without uvicorn's signal handlers, which end the process before the runners have ended."""

    def __init__(
        self, config: uvicorn.Config, gateway: Gateway, *, drain_delay: float, started: Callable[[], None]
    ) -> None:
        super().__init__(config, gateway, drain_delay=drain_delay)
        self._on_started = started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_started()
