"""Consistency of alerts and dashboard with the metrics of the processes, and of the alerts page with the alerts."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from corral_core.base.exposition import MetricSource
from corral_core.base.process_metrics import process_families
from corral_kube.calls import APICallMetrics
from corral_operator.process.metrics import OperatorMetrics
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.peers.peer_usage import Peers
from corral_server.gateway.server import GatewayServer, uvicorn_config
from corral_server.runner.lifecycle.metrics import families as runner_families
from tests.gateway.test_keys import key_file
from tests.support.exposition import expose_text, lint_rules, metrics_in_queries, parse_metric_types
from tests.support.fake_engine import FakeEngine
from tests.support.gateway import MemoryDirectory, running_gateway
from tests.support.runner_server import runner_state

ROOT = Path(__file__).resolve().parent.parent
FILES = ROOT / "charts/corral/files"
RULES = [rule for group in yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((FILES / "dashboard.json").read_text())
PAGES = {name: (ROOT / "docs" / name).read_text() for name in ("alerts.md", "metrics.md")}


@pytest.fixture(scope="module")
def exposition(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the expositions of all processes."""

    keys = key_file(tmp_path_factory.mktemp("keys"), alice={"expires": "2027-01-31T00:00:00Z"})

    async def gateway() -> str:
        async with running_gateway(MemoryDirectory.of(), keys_file=keys) as running:
            config = GatewayConfig()
            server = GatewayServer(uvicorn_config(running.gateway, config), running.gateway)
            return expose_text(running.gateway.families, server.families, Peers("this").families)

    runner: MetricSource = lambda: runner_families(runner_state(FakeEngine()))  # noqa: E731  # named for its type
    called: MetricSource = lambda: APICallMetrics().families("corral_gateway")  # noqa: E731  # named for its type
    return asyncio.run(gateway()) + expose_text(process_families, OperatorMetrics().families, runner, called)


@pytest.fixture(scope="module")
def metric_types(exposition: str) -> Mapping[str, str]:
    """Return the type of every metric by name."""
    return parse_metric_types(exposition)


def base(name: str, metric_types: Mapping[str, str]) -> str | None:
    """Return the family of a series in a query."""
    if name in metric_types and metric_types[name] != "histogram":
        return name
    family = re.sub(r"_(bucket|sum|count)$", "", name)
    return family if family != name and metric_types.get(family) == "histogram" else None


def targets() -> Iterator[tuple[str, str]]:
    """Yield each dashboard query with its panel title, with Grafana's variables replaced."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m").replace("$model", ".*")


def test_every_alert_query_is_promql_over_existing_metrics(metric_types: Mapping[str, str]) -> None:
    for rule, names in zip(RULES, metrics_in_queries([rule["expr"] for rule in RULES]), strict=True):
        assert names
        assert [name for name in names if base(name, metric_types) is None] == [], rule["alert"]


def test_every_dashboard_query_is_promql_over_existing_metrics(metric_types: Mapping[str, str]) -> None:
    queries = list(targets())
    for (title, _), names in zip(queries, metrics_in_queries([query for _, query in queries]), strict=True):
        assert names
        assert [name for name in names if base(name, metric_types) is None] == [], title


def test_the_alerts_pass_the_checks_of_prometheus() -> None:
    text = (FILES / "alerts.yaml").read_text()
    assert lint_rules(text) == ""
    assert "function" in lint_rules(text.replace("| humanize }}", "| humanise }}"))


def test_the_labels_in_an_alert_text_are_kept_by_its_query() -> None:
    for rule in RULES:
        text = " ".join(rule["annotations"].values())
        for label in re.findall(r"\$labels\.(\w+)", text):
            kept = re.search(r"by \(([^)]*)\)", rule["expr"])
            assert kept is None or label in kept[1].split(", "), rule["alert"]


def test_every_alert_has_a_runbook_section_and_every_section_an_alert() -> None:
    sections = re.split(r"^## ", PAGES["alerts.md"], flags=re.MULTILINE)[1:]
    said = {section.split("\n", 1)[0]: section for section in sections}
    assert said.keys() == {rule["alert"] for rule in RULES}
    assert all(len(section) > 200 for section in said.values())


def test_every_alert_has_a_severity_and_a_pending_time() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert re.fullmatch(r"\d+m", rule["for"])
        assert rule["annotations"].keys() == {"summary", "description"}


def test_dashboard_panels_have_unique_ids_and_do_not_overlap() -> None:
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identities)) == len(identities)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_the_metrics_page_lists_every_metric_with_its_help_text(
    exposition: str, metric_types: Mapping[str, str]
) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| [^|]+ \| (.*) \|$", PAGES["metrics.md"], flags=re.MULTILINE)
    texts = dict(re.findall(r"^# HELP (\w+) (.*)$", exposition, flags=re.MULTILINE))
    assert sorted(rows) == sorted((name, kind, texts[name]) for name, kind in metric_types.items())
