"""Checks of metrics expositions, alert rules and PromQL by the code of Prometheus.

``lint_metrics`` returns the findings of ``promtool check metrics``; ``metrics_in_queries`` uses the PromQL
parser. Both run ``promcheck``, a program that is built from the Go modules of Prometheus. Without Go, or if the modules
cannot be downloaded, the test is skipped; with CORRAL_REQUIRE_CLUSTER=1, which needs Go anyway, it fails.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from corral_core.base.exposition import MetricSource, expose

SOURCE = Path(__file__).with_name("promcheck")
parse_openmetrics: Callable[[str], Iterable[Metric]] = openmetrics.text_string_to_metric_families


def expose_text(*sources: MetricSource) -> str:
    """Expose the families in the text format 0.0.4."""
    return expose(sources)[0].decode()


def parse_metric_types(text: str) -> Mapping[str, str]:
    """Return metric types by name. Fails for a duplicate series or an invalid histogram."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert name not in found, f"{name} has two TYPE lines"
            found[name] = kind
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    for family in parse(text):
        assert family.documentation, family.name
        assert family.type != "unknown", family.name
        for sample in family.samples:
            series = (sample.name, tuple(sorted(sample.labels.items())))
            assert series not in seen, f"duplicate series {series}"
            seen.add(series)
    _check_openmetrics(text)
    return found


def sample_value(text: str, name: str, **labels: str) -> float:
    """Return the value of the only series with this name and these labels."""
    found = [
        sample.value
        for family in parse(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, f"{name} {labels}: {len(found)} series\n{text}"
    return float(found[0])


def series_labels(text: str, name: str) -> list[Mapping[str, str]]:
    return [sample.labels for family in parse(text) for sample in family.samples if sample.name == name]


def lint_metrics(text: str) -> str:
    """Return the findings of promlint."""
    return _lint("metrics", text)


def lint_rules(text: str) -> str:
    """Return the findings of ``promtool check rules``, annotation templates included."""
    return _lint("rules", text)


def _lint(command: str, text: str) -> str:
    done = subprocess.run([promcheck(), command], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 3), done.stderr
    return done.stdout


def metrics_in_queries(queries: Sequence[str]) -> list[list[str]]:
    """Return the series names in each PromQL expression. Fails for an invalid expression."""
    text = json.dumps(list(queries))
    done = subprocess.run([promcheck(), "queries"], input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = json.loads(done.stdout)
    return found


def _check_openmetrics(text: str) -> None:
    """Check with the OpenMetrics parser, which is stricter for histograms; its counter families have no ``_total``."""
    lines = []
    for line in text.splitlines():
        words = line.split(" ", 3)
        if words[:2] in (["#", "TYPE"], ["#", "HELP"]):
            words[2] = words[2].removesuffix("_total")
        lines.append(" ".join(words))
    list(parse_openmetrics("\n".join([*lines, "# EOF"]) + "\n"))


@functools.cache
def promcheck() -> str:
    """Return the path of the built program."""
    if shutil.which("go") is None:
        _skip_or_fail("promcheck needs Go, which is not installed")
    folder = tempfile.mkdtemp(prefix="corral-promcheck-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "promcheck"
    built = subprocess.run(
        ["go", "build", "-o", path, "."], cwd=SOURCE, capture_output=True, text=True, timeout=240, check=False
    )
    if built.returncode:
        _skip_or_fail(f"promcheck cannot be built: {built.stderr[-300:]}")
    return str(path)


def _skip_or_fail(reason: str) -> NoReturn:
    if os.environ.get("CORRAL_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"CORRAL_REQUIRE_CLUSTER=1, but {reason}", pytrace=False)
    pytest.skip(reason)
