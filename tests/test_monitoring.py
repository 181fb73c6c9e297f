"""The chart's alerts and dashboard against what the processes really tell, and the alerts' page against the alerts."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml

from corral_core.metrics import Collector, render
from corral_core.process_metrics import process_families
from corral_kube.calls import Calls
from corral_operator.metrics import Measures
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.peers.known import Peers
from corral_server.gateway.serving import DrainingServer, uvicorn_config
from corral_server.runner.metrics import families as runner_families
from tests.support.exposition import families, metrics_in, problems_of_rules
from tests.support.fake_engine import FakeEngine
from tests.support.gateway import MemoryDirectory, running_gateway
from tests.support.runner_server import runner_state

ROOT = Path(__file__).resolve().parent.parent
FILES = ROOT / "charts/corral/files"
RULES = [rule for group in yaml.safe_load((FILES / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((FILES / "dashboard.json").read_text())
PAGES = {name: (ROOT / "docs" / name).read_text() for name in ("alerts.md", "metrics.md")}


@pytest.fixture(scope="module")
def exposition() -> str:
    """What all kinds of processes tell."""

    async def gateway() -> str:
        async with running_gateway(MemoryDirectory.of()) as running:
            config = GatewayConfig()
            server = DrainingServer(uvicorn_config(running.gateway, config), running.gateway, delay=0.0)
            return render([running.gateway.families, server.families, Peers("this").families])

    runner: Collector = lambda: runner_families(runner_state(FakeEngine()))  # noqa: E731  # named for its type
    called: Collector = lambda: Calls().families("corral_gateway")  # noqa: E731  # named for its type
    return asyncio.run(gateway()) + render([process_families, Measures().families, runner, called])


@pytest.fixture(scope="module")
def told(exposition: str) -> Mapping[str, str]:
    """Every name that a process tells, to its kind."""
    return families(exposition)


def base(name: str, told: Mapping[str, str]) -> str | None:
    """The family that a series in a query belongs to."""
    if name in told and told[name] != "histogram":
        return name
    family = re.sub(r"_(bucket|sum|count)$", "", name)
    return family if family != name and told.get(family) == "histogram" else None


def targets() -> Iterator[tuple[str, str]]:
    """Each query of the dashboard with its panel's title; Grafana's own words are replaced by what they stand for."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m").replace("$model", ".*")


def test_every_query_of_an_alert_is_promql_over_metrics_that_exist(told: Mapping[str, str]) -> None:
    for rule, names in zip(RULES, metrics_in([rule["expr"] for rule in RULES]), strict=True):
        assert names
        assert [name for name in names if base(name, told) is None] == [], rule["alert"]


def test_every_query_of_the_dashboard_is_promql_over_metrics_that_exist(told: Mapping[str, str]) -> None:
    queries = list(targets())
    for (title, _), names in zip(queries, metrics_in([query for _, query in queries]), strict=True):
        assert names
        assert [name for name in names if base(name, told) is None] == [], title


def test_the_alerts_are_clean_by_prometheus_own_checks() -> None:
    text = (FILES / "alerts.yaml").read_text()
    assert problems_of_rules(text) == ""
    assert "function" in problems_of_rules(text.replace("| humanize }}", "| humanise }}"))


def test_the_labels_of_an_alert_are_those_that_its_query_keeps() -> None:
    for rule in RULES:
        text = " ".join(rule["annotations"].values())
        for label in re.findall(r"\$labels\.(\w+)", text):
            kept = re.search(r"by \(([^)]*)\)", rule["expr"])
            assert kept is None or label in kept[1].split(", "), rule["alert"]


def test_every_alert_has_a_section_that_says_what_to_do_and_no_section_is_left_over() -> None:
    sections = re.split(r"^## ", PAGES["alerts.md"], flags=re.MULTILINE)[1:]
    said = {section.split("\n", 1)[0]: section for section in sections}
    assert said.keys() == {rule["alert"] for rule in RULES}
    assert all(len(section) > 200 for section in said.values())


def test_every_alert_says_how_bad_it_is_and_waits_before_it_wakes_anybody() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert re.fullmatch(r"\d+m", rule["for"])
        assert rule["annotations"].keys() == {"summary", "description"}


def test_the_panels_of_the_dashboard_are_told_apart_and_do_not_overlap() -> None:
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identities)) == len(identities)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells


def test_the_page_of_metrics_names_every_metric_in_its_own_words(exposition: str, told: Mapping[str, str]) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| [^|]+ \| (.*) \|$", PAGES["metrics.md"], flags=re.MULTILINE)
    texts = dict(re.findall(r"^# HELP (\w+) (.*)$", exposition, flags=re.MULTILINE))
    assert sorted(rows) == sorted((name, kind, texts[name]) for name, kind in told.items())
