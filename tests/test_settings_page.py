"""The page of settings against what the processes really ask their environment for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from corral_operator.config import from_environment as operator_config
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.kube_directory import KubeSettings
from corral_server.gateway.monitor import MonitorSettings
from corral_server.gateway.peers.exchange import PeerSettings
from corral_server.local.config import LocalConfig
from corral_server.runner.config import from_environment as runner_config

PAGE = Path(__file__).resolve().parent.parent / "docs/settings.md"


class Asked(Mapping[str, str]):
    """An environment that remembers what it was asked for."""

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


def said() -> Mapping[str, set[str]]:
    """Each setting, and the letters of those who read it; OpenTelemetry reads its own."""
    rows = re.findall(r"^\| `(\w+)` \| ([lgor ]+) \|", PAGE.read_text(), re.MULTILINE)
    return {name: set(letters.split()) for name, letters in rows if not name.startswith("OTEL_")}


def test_every_setting_is_read_by_those_that_the_page_names() -> None:
    gateway, operator = Asked(), Asked()
    runner = Asked(CORRAL_MODEL='{"name": "a", "namespace": "b", "spec": {"source": "file:///x"}}')
    GatewayConfig.from_environment(gateway)
    KubeSettings.from_environment(gateway)
    PeerSettings.from_environment(gateway)
    MonitorSettings.from_environment(gateway)
    operator_config(operator)
    runner_config(runner)
    parts = {"g": gateway.names, "o": operator.names, "r": runner.names}
    assert len(said()) > 50
    for name, letters in said().items():
        assert letters - {"l"} == {letter for letter, names in parts.items() if name in names}, name


def test_local_mode_reads_what_the_page_says_and_hands_its_runners_the_rest() -> None:
    local = Asked()
    LocalConfig.from_environment(local)
    for name, letters in said().items():
        assert "l" in letters or name not in local.names - {"CORRAL_GATEWAY_ID"}, name
        assert "l" not in letters or name in local.names or letters & {"r"}, name
