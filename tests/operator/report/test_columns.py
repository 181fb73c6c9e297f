"""Texts for the columns of ``kubectl get models``."""

from __future__ import annotations

from dataclasses import replace

from corral_core.contracts.pull_status import PullStatus
from corral_core.planning.snapshot import Decision
from corral_operator.observe.pulling.image_volumes import MountedImage
from corral_operator.observe.pulling.puller import parse_puller
from corral_operator.report.columns import columns
from corral_operator.report.view import PullView
from tests.operator import pull_samples
from tests.operator.report.test_status import IDLE, pod, view


def test_replicas_are_the_ready_ones_of_those_that_are_wanted() -> None:
    assert columns(view(Decision(2, "fixed"), pod(), pod(ready=False)))["replicas"] == "1/2"
    assert columns(view(IDLE))["replicas"] == "0/0"


def test_the_size_is_in_decimal_units_like_that_of_ollama_list() -> None:
    assert columns(view(IDLE))["size"] == "98 MB"
    assert "size" not in columns(replace(view(IDLE), metadata=None))


def pulled(pull: PullView | None) -> str | None:
    return columns(replace(view(IDLE), pull=pull)).get("pulled")


def test_the_pulled_part_is_that_of_a_remote_source() -> None:
    puller = parse_puller(pull_samples.puller({"running": {}}))
    running = PullView(pull_samples.RESOLVED, puller=puller, status=PullStatus(43, 100, 1.0, "pulling"))
    mounted = PullView(pull_samples.IMAGE, mounted=MountedImage("registry.example/model@sha256:0f", "m.gguf"))
    assert pulled(running) == "43%"
    assert pulled(PullView(pull_samples.RESOLVED)) == "0%"
    assert pulled(PullView(pull_samples.PULLED)) == "100%"
    assert pulled(None) is pulled(mounted) is None
    assert pulled(PullView(pull_samples.RESOLVED, in_pods=True)) is None, "each runner pod pulls"
