"""docs/settings.md compared with the environment variables that the processes read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from corral_operator.config import from_environment as operator_config
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.directory.kubernetes import KubeSettings
from corral_server.gateway.management.oci.repository import blob_repository
from corral_server.gateway.management.policy import CreationPolicy
from corral_server.gateway.observability.monitoring import MonitoringSettings
from corral_server.gateway.peers.sync import PeerSettings
from corral_server.gateway.probes import probe_port
from corral_server.local.background.files import state_folder
from corral_server.local.background.server import may_start
from corral_server.local.config import LocalConfig
from corral_server.pull.download.options import download_options
from corral_server.pull.http.settings import network_settings
from corral_server.pull.resolvers.hubs.endpoints import hub_endpoints
from corral_server.runner.config import from_environment as runner_config

PAGE = Path(__file__).resolve().parent.parent / "docs/settings.md"


class RecordingEnvironment(Mapping[str, str]):
    """Environment that records the names that were read."""

    def __init__(self, **held: str) -> None:
        self._held = held
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return self._held[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


def documented() -> Mapping[str, set[str]]:
    """Return each setting with the letters of the processes that read it, except the settings of OpenTelemetry."""
    rows = re.findall(r"^\| `(\w+)` \| ([lgorp ]+) \|", PAGE.read_text(), re.MULTILINE)
    return {name: set(letters.split()) for name, letters in rows if not name.startswith("OTEL_")}


def test_every_setting_is_read_by_the_processes_on_the_page() -> None:
    gateway = RecordingEnvironment(CORRAL_BLOBS_REPOSITORY="registry.example/blobs")
    operator, puller = RecordingEnvironment(), RecordingEnvironment()
    runner = RecordingEnvironment(CORRAL_MODEL='{"name": "a", "namespace": "b", "spec": {"source": "file:///x"}}')
    GatewayConfig.from_environment(gateway)
    KubeSettings.from_environment(gateway)
    PeerSettings.from_environment(gateway)
    MonitoringSettings.from_environment(gateway)
    probe_port(gateway)
    CreationPolicy.from_environment(gateway)
    blob_repository(gateway)
    operator_config(operator)
    runner_config(runner)
    network_settings(puller)
    hub_endpoints(puller)
    download_options(puller)
    parts = {"g": gateway.names, "o": operator.names, "r": runner.names, "p": puller.names}
    assert len(documented()) > 50
    for name, letters in documented().items():
        assert letters - {"l"} == {letter for letter, names in parts.items() if name in names}, name


def test_local_mode_reads_its_settings_and_passes_the_others_to_runners() -> None:
    local = RecordingEnvironment()
    LocalConfig.from_environment(local)
    state_folder(local)
    may_start(local)
    network_settings(local)
    hub_endpoints(local)
    download_options(local)
    for name, letters in documented().items():
        assert "l" in letters or name not in local.names - {"CORRAL_GATEWAY_ID"}, name
        assert "l" not in letters or name in local.names or letters & {"r"}, name
