"""Reads metrics, and queries of them, as strictly as Prometheus' own tools do.

``problems`` is what ``promtool check metrics`` says, and ``metrics_in`` uses Prometheus' parser: a small program built
from its Go modules. A machine without Go, or without those modules at hand, skips the test; with
CORRAL_REQUIRE_CLUSTER=1, where Go is needed anyway, it fails.
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
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

SOURCE = Path(__file__).with_name("promcheck")
_open_metrics: Callable[[str], Iterable[object]] = openmetrics.text_string_to_metric_families


def families(text: str) -> Mapping[str, str]:
    """Name, as it stands in the text, to kind. Fails when a series comes twice or a histogram is not one."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:]
            assert name not in found, f"{name} comes twice"
            found[name] = kind
    seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
    for family in parse(text):
        assert family.documentation, family.name
        assert family.type != "unknown", family.name
        for sample in family.samples:
            series = (sample.name, tuple(sorted(sample.labels.items())))
            assert series not in seen, f"{series} comes twice"
            seen.add(series)
    _strict(text)
    return found


def value(text: str, name: str, **labels: str) -> float:
    """The one series of this name that has these labels, among others."""
    found = [
        sample.value
        for family in parse(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, f"{name} {labels}: {len(found)} series\n{text}"
    return float(found[0])


def series(text: str, name: str) -> list[Mapping[str, str]]:
    return [sample.labels for family in parse(text) for sample in family.samples if sample.name == name]


def problems(text: str) -> str:
    """What promlint finds; empty when all is well."""
    return _check("metrics", text)


def problems_of_rules(text: str) -> str:
    """What ``promtool check rules`` says of a file of rules, the templates of their annotations included."""
    return _check("rules", text)


def _check(what: str, text: str) -> str:
    done = subprocess.run([promcheck(), what], input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in (0, 3), done.stderr
    return done.stdout


def metrics_in(queries: Sequence[str]) -> list[list[str]]:
    """The names of series that each PromQL expression reads. Fails for one that is not PromQL."""
    text = json.dumps(list(queries))
    done = subprocess.run([promcheck(), "queries"], input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = json.loads(done.stdout)
    return found


def _strict(text: str) -> None:
    """OpenMetrics' parser has more rules for buckets and counts; there a counter's family has no ``_total``."""
    lines = []
    for line in text.splitlines():
        words = line.split(" ", 3)
        if words[:2] in (["#", "TYPE"], ["#", "HELP"]):
            words[2] = words[2].removesuffix("_total")
        lines.append(" ".join(words))
    list(_open_metrics("\n".join([*lines, "# EOF"]) + "\n"))


@functools.cache
def promcheck() -> str:
    """The program, built."""
    if shutil.which("go") is None:
        _cannot("there is no Go, with which promcheck is built")
    folder = tempfile.mkdtemp(prefix="corral-promcheck-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = Path(folder) / "promcheck"
    built = subprocess.run(
        ["go", "build", "-o", path, "."], cwd=SOURCE, capture_output=True, text=True, timeout=240, check=False
    )
    if built.returncode:
        _cannot(f"promcheck cannot be built: {built.stderr[-300:]}")
    return str(path)


def _cannot(reason: str) -> NoReturn:
    if os.environ.get("CORRAL_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"CORRAL_REQUIRE_CLUSTER=1, but {reason}", pytrace=False)
    pytest.skip(reason)
