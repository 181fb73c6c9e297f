"""``corral serve``: gateway, planner and runners on one machine, in one event loop and its child processes.

The order of shutting down: the server stops accepting; requests that run or wait are served to their end, for which
planner and runners go on; then planning and watching end; then the runners are asked to end, and waited for. A second
signal ends everything at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import uvicorn
import uvloop

from corral_core.errors import CorralError
from corral_server.gateway.app import Gateway
from corral_server.gateway.monitor import metrics_server, open_sinks
from corral_server.gateway.record import Sink
from corral_server.gateway.serving import DrainingServer, open_more_files, uvicorn_config
from corral_server.local.config import LocalConfig
from corral_server.local.controller import Controller
from corral_server.local.directory import LocalDirectory
from corral_server.local.files import Listing, ModelFiles
from corral_server.local.logs import Bridge, EventLog
from corral_server.local.machine import capacity
from corral_server.local.supervisor import Supervisor
from corral_server.local.watch import report, watch

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class CannotServe(CorralError):
    """There is nothing to serve, or nowhere to serve it."""


def serve(config: LocalConfig, paths: Sequence[Path], log: EventLog) -> None:
    """Serves until a signal. Raises CannotServe."""
    logging.basicConfig(level=logging.WARNING, handlers=[Bridge(log)], force=True)
    files = ModelFiles(paths, config.runner.pvc_root)
    listing = first_listing(files)
    open_more_files()
    listener = bind(config.gateway.host, config.gateway.port)
    with contextlib.closing(listener), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_Serving(config, files, log).run(listing, listener))


def first_listing(files: ModelFiles) -> Listing:
    """Raises CannotServe when a path that was named does not exist or a file that was named is not valid."""
    for path in files.paths:
        if not path.exists():
            raise CannotServe(f"there is no file or folder {path}")
    listing = files.read()
    for path, problem in listing.problems.items():
        if path in files.paths:
            raise CannotServe(f"{path}: {problem}")
    return listing


def bind(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 lets the system choose. Raises CannotServe."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise CannotServe(f"cannot listen on {host} port {port}: {error.strerror or error}") from error


class _Serving:
    """One run of local mode."""

    def __init__(self, config: LocalConfig, files: ModelFiles, log: EventLog) -> None:
        self._config = config
        self._files = files
        self._log = log
        self._supervisor = Supervisor(config.runner, log, self._runner_changed)
        self._directory = LocalDirectory(self._supervisor, log, self._wake)
        self._controller = Controller(
            self._directory,
            self._supervisor,
            config.policy,
            log,
            capacity=capacity,
            environ=config.runner.environment,
        )

    async def run(self, listing: Listing, listener: socket.socket) -> None:
        report(self._log, listing, None)
        self._directory.replace(listing.models)
        monitoring, environ = self._config.monitoring, self._config.runner.environment
        async with open_sinks(monitoring, environ, write=self._log.event) as sinks:
            await self._run(listing, listener, sinks)
        self._log.event("ended")

    async def _run(self, listing: Listing, listener: socket.socket, sinks: Sequence[Sink]) -> None:
        gateway = Gateway(self._directory, self._config.gateway, sinks=sinks)
        config, delay = uvicorn_config(gateway, self._config.gateway), self._config.gateway.drain_delay
        server = _Server(config, gateway, delay=delay, started=lambda: self._started(listener))
        monitors = metrics_server(self._config.monitoring, self._config.gateway.host, gateway.families, server.families)
        with self._signals(server):
            async with monitors, self._supervisor:
                await self._serve(server, listing, listener)
                self._log.event("ending")

    async def _serve(self, server: uvicorn.Server, listing: Listing, listener: socket.socket) -> None:
        """Returns when the server has shut down; planning goes on until then."""
        async with asyncio.TaskGroup() as group:
            tasks = (
                group.create_task(self._controller.run(), name="planner"),
                group.create_task(watch(self._files, self._log, self._relisted, last=listing), name="watch"),
            )
            await server.serve(sockets=[listener])
            for task in tasks:
                task.cancel()

    def _relisted(self, listing: Listing) -> None:
        self._directory.replace(listing.models)

    def _runner_changed(self, key: str) -> None:
        self._directory.changed(key)

    def _wake(self) -> None:
        self._controller.wake()

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
            loop.add_signal_handler(number, self._signalled, server, number)
        try:
            yield
        finally:
            for number in SIGNALS:
                loop.remove_signal_handler(number)

    def _signalled(self, server: uvicorn.Server, number: signal.Signals) -> None:
        again = server.should_exit
        self._log.event("signal", signal=number.name, meaning="ends at once" if again else "ends when requests have")
        server.should_exit = True
        if again:
            server.force_exit = True
            self._supervisor.kill()


class _Server(DrainingServer):
    """The server without its signal handlers, which end the process before the runners are gone."""

    def __init__(self, config: uvicorn.Config, gateway: Gateway, *, delay: float, started: Callable[[], None]) -> None:
        super().__init__(config, gateway, delay=delay)
        self._tell = started

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell()
