"""``corral-gateway``: the gateway as a process in a cluster. Everything is set by the environment.

Order of shutting down: uvicorn drains, the gateway withdraws its demand, the other gateways are told no more, the
directory stops watching.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator

import uvloop

from corral_core import jsonlog
from corral_core.errors import CorralError
from corral_core.metrics import Family
from corral_kube.calls import Calls
from corral_server.gateway import log
from corral_server.gateway.app import Gateway
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.kube_directory import KubeSettings, open_directory
from corral_server.gateway.monitor import MonitorSettings, metrics_server, open_sinks
from corral_server.gateway.peers.exchange import PeerSettings, open_exchange
from corral_server.gateway.peers.known import Peers
from corral_server.gateway.serving import DrainingServer, open_more_files, rest_collector, uvicorn_config


def main() -> None:
    """Serves until SIGTERM or SIGINT, then drains; exit code 0 after a drain, 1 when the settings are refused."""
    jsonlog.configure()
    signal.signal(signal.SIGTERM, _noted)  # uvicorn raises the signal again when it has drained
    signal.signal(signal.SIGINT, _noted)
    try:
        config = GatewayConfig.from_environment(os.environ)
        settings = KubeSettings.from_environment(os.environ)
        peering = PeerSettings.from_environment(os.environ)
        monitoring = MonitorSettings.from_environment(os.environ)
        rest_collector()
        open_more_files()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(config, settings, peering, monitoring=monitoring))
    except CorralError as error:
        sys.exit(f"corral-gateway: {error}")
    log.event("exit")


async def serve(
    config: GatewayConfig, settings: KubeSettings, peering: PeerSettings, *, monitoring: MonitorSettings
) -> None:
    peers, calls = Peers(config.gateway_id), Calls()

    def called() -> Iterator[Family]:
        return calls.families("corral_gateway")

    async with (
        open_sinks(monitoring, os.environ) as sinks,
        open_directory(settings, gateway_id=config.gateway_id, calls=calls) as directory,
    ):
        gateway = Gateway(directory, config, peers, sinks=sinks)
        holding = gateway.dispatcher.queue.holding
        server = _Server(uvicorn_config(gateway, config), gateway, delay=config.drain_delay)
        async with (
            metrics_server(monitoring, config.host, gateway.families, server.families, peers.families, called),
            open_exchange(peering, peers, holding, host=config.host, kubeconfig=settings.kubeconfig, calls=calls),
        ):
            await server.serve()


class _Server(DrainingServer):
    """The server that says what it does in our log."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            addresses = [listener.getsockname()[:2] for server in self.servers for listener in server.sockets]
            log.event("listening", addresses=[f"{host} port {port}" for host, port in addresses])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.event("drain", connections=len(self.server_state.connections), requests=len(self.server_state.tasks))
        await super().shutdown(sockets)


def _noted(number: int, frame: object) -> None:
    """The signal was dealt with."""
