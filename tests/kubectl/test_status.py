"""The table of ``kubectl corral status``."""

from __future__ import annotations

import re

import pytest

from corral_core.base.timestamps import format_time
from corral_kubectl.models import chosen, name_of
from corral_kubectl.status import explanation, status_lines
from corral_kubectl.texts import age, shortened, table
from tests.kubectl.samples import NOW, condition, model

GIB = 2**30
LOADED = model(
    "llama",
    condition("Loaded", "True", "Loaded", "1 of 1 runners are ready, on node-a"),
    condition("Ready", "True", "Ready", "a runner is ready"),
    phase="Ready",
    replicas=1,
    readyReplicas=1,
    pending=2,
    columns={"replicas": "1/1"},
    placement={"gpus": 1, "sizeBytes": 2 * GIB},
    expiresAt=format_time(NOW + 192),
)
PULLING = model(
    "qwen",
    condition("Ready", "False", "Pulling", "43% of 4.7 GB"),
    namespace="team-b",
    phase="Pulling",
    pull={"completed": "43%"},
)


def test_a_line_has_what_a_model_takes_and_when_it_is_unloaded() -> None:
    head, line = status_lines([LOADED], NOW, namespaces=False)
    assert head.split() == ["NAME", "PHASE", "READY", "REPLICAS", "PENDING", "GPUS", "MEMORY", "UNLOADS", "REASON"]
    row = dict(zip(head.split(), _cells(head, line), strict=True))
    assert row == {
        "NAME": "llama",
        "PHASE": "Ready",
        "READY": "True",
        "REPLICAS": "1/1",
        "PENDING": "2",
        "GPUS": "1",
        "MEMORY": "2 GiB",
        "UNLOADS": "in 3m12s",
        "REASON": "1 of 1 runners are ready, on node-a",
    }


def test_a_pull_is_shown_with_its_progress_and_all_namespaces_with_their_names() -> None:
    head, _, line = status_lines([LOADED, PULLING], NOW, namespaces=True)
    cells = _cells(head, line)
    assert cells[:3] == ["team-b", "qwen", "Pulling 43%"]
    assert cells[-1] == "43% of 4.7 GB"


def _cells(head: str, line: str) -> list[str]:
    """Split a line at the columns of the head."""
    starts = [word.start() for word in re.finditer(r"\S+", head)]
    return [line[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]


@pytest.mark.parametrize(
    ("conditions", "phase", "text"),
    [
        ((), "", "the operator has not processed this Model yet"),
        ((condition("Stalled", "True", "Invalid", "no such field"),), "Failed", "no such field"),
        (
            (condition("Loaded", "False", "Loading", "it loads"), condition("Ready", "True", "Loading", "queued")),
            "Loading",
            "it loads",
        ),
        (
            (condition("Accelerated", "False", "OnCPU", "on the CPU"), condition("Ready", "True", "Ready", "ready")),
            "Degraded",
            "on the CPU",
        ),
    ],
)
def test_the_reason_is_that_of_the_phase(conditions: tuple[dict[str, object], ...], phase: str, text: str) -> None:
    assert explanation(model("llama", *conditions, phase=phase)) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (48, "48s"), (192, "3m12s"), (700, "11m"), (7380, "2h3m"), (200_000, "2d7h")]
)
def test_ages_have_one_or_two_units(seconds: float, text: str) -> None:
    assert age(seconds) == text


def test_a_table_is_aligned_and_texts_are_one_line() -> None:
    assert table(("A", "B"), [("long", "x"), ("s", "")]) == ["A      B", "long   x", "s"]
    assert shortened("one\ntwo  three", 9) == "one two …"


def test_a_model_is_chosen_by_its_own_name_before_a_name_of_clients() -> None:
    items = [model("other", spec={"names": ["llama", "llama3.2:1b"]}), model("llama", spec={"names": ["x"]})]
    found = {name: chosen(items, name) for name in ("llama", "llama3.2:1b", "LLAMA3.2:1b", "none", "a b")}
    names = {name: name_of(item) if item is not None else None for name, item in found.items()}
    assert names == {"llama": "llama", "llama3.2:1b": "other", "LLAMA3.2:1b": "other", "none": None, "a b": None}
