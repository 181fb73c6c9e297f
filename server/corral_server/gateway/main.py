"""Entry point of ``corral-gateway``, the gateway process in a cluster, configured by environment variables.

Order of shutdown: uvicorn drains, the gateway withdraws its demand, the usage reports to peers end, the probes end, the
directory stops watching.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Iterator

import uvloop

from corral_core.base import json_log
from corral_core.base.errors import CorralError
from corral_core.base.exposition import Metric
from corral_kube.calls import APICallMetrics
from corral_server.gateway import log
from corral_server.gateway.app import Gateway
from corral_server.gateway.auth.key_store import KeyStore
from corral_server.gateway.auth.namespace_keys import open_namespace_keys
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.directory.kubernetes import KubeSettings, open_directory
from corral_server.gateway.management.kubernetes import open_management
from corral_server.gateway.observability.monitoring import MonitoringSettings, metrics_server, open_observers
from corral_server.gateway.peers.peer_usage import Peers
from corral_server.gateway.peers.sync import PeerSettings, open_peer_sync
from corral_server.gateway.probes import probe_port, probes_if
from corral_server.gateway.server import GatewayServer, raise_open_file_limit, tune_garbage_collector, uvicorn_config
from corral_server.system.signals import ignore_shutdown_signals


def main() -> None:
    """Serve until SIGTERM or SIGINT, then drain. Exits with 0 after a drain, with 1 if the settings are invalid."""
    json_log.configure_logging()
    ignore_shutdown_signals()
    try:
        config = GatewayConfig.from_environment(os.environ)
        settings = KubeSettings.from_environment(os.environ)
        peering = PeerSettings.from_environment(os.environ)
        monitoring = MonitoringSettings.from_environment(os.environ)
        tune_garbage_collector()
        raise_open_file_limit()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(config, settings, peering, monitoring=monitoring, probes=probe_port(os.environ)))
    except CorralError as error:
        sys.exit(f"corral-gateway: {error}")
    log.event("exit")


async def serve(
    config: GatewayConfig,
    settings: KubeSettings,
    peering: PeerSettings,
    *,
    monitoring: MonitoringSettings,
    probes: int = 0,
) -> None:
    peers, calls = Peers(config.gateway_id), APICallMetrics()
    keys = KeyStore(config.keys_file) if config.keys_file or settings.keys_secret else None

    def api_calls() -> Iterator[Metric]:
        return calls.families("corral_gateway")

    async with (
        open_observers(monitoring, os.environ) as observers,
        open_directory(settings, gateway_id=config.gateway_id, calls=calls) as directory,
        open_namespace_keys(keys, settings, calls=calls),
        open_management(os.environ, settings, calls=calls) as management,
    ):
        gateway = Gateway(directory, config, peers, observers=observers, keys=keys, management=management)
        usage = gateway.dispatcher.queue.usage
        server = _LoggingServer(uvicorn_config(gateway, config), gateway, drain_delay=config.drain_delay)
        async with (
            probes_if(probes, config.host, server.readiness),
            metrics_server(monitoring, config.host, gateway.families, server.families, peers.families, api_calls),
            open_peer_sync(peering, peers, usage, host=config.host, kubeconfig=settings.kubeconfig, calls=calls),
        ):
            await server.serve()


class _LoggingServer(GatewayServer):
    """GatewayServer with log events."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            addresses = [listener.getsockname()[:2] for server in self.servers for listener in server.sockets]
            log.event("listening", addresses=[f"{host} port {port}" for host, port in addresses])

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        log.event("drain", connections=len(self.server_state.connections), requests=len(self.server_state.tasks))
        await super().shutdown(sockets)
