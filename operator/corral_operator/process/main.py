"""The operator process: settings, connection to the API server, HTTP server, and terms of leadership.

A failed term ends the process with status 1; it is restarted by Kubernetes and continues from what it observes. Only
losing the Lease, for example in a long outage of the API server, is handled inside the process: the term is torn down,
and the next one begins with an election. HTTP ends last.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from corral_core.base.errors import CorralError, InvalidSetting
from corral_kube.client import connect
from corral_operator import logs
from corral_operator.config import FIELD_MANAGER, OperatorConfig, from_environment
from corral_operator.process.health import Health
from corral_operator.process.http_server import pages, serve_pages
from corral_operator.process.lease import LeaseLost
from corral_operator.process.metrics import OperatorMetrics
from corral_operator.process.term import Term


async def _serve(config: OperatorConfig) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    health = Health()
    kube = await connect(config.kubeconfig, manager=FIELD_MANAGER)
    metrics = OperatorMetrics(kube.calls)
    try:
        async with serve_pages(pages(health, metrics), config.http_port):
            while not stop.is_set():
                try:
                    await Term(kube, config, health, metrics).run(stop)
                except LeaseLost as error:
                    logs.event("lease_lost", level=logging.ERROR, error=str(error))
    finally:
        await kube.close()


def main() -> None:
    """Run ``corral-operator``."""
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
