"""A status is written when it changed, and warm traffic writes next to nothing."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from corral_core.jsonfields import dig
from corral_core.snapshot import Decision
from corral_core.timestamps import format_seconds
from corral_operator import paths
from corral_operator.config import RunnerDefaults
from corral_operator.objects import parse_pod
from corral_operator.observe import RunnerInfo, Store
from corral_operator.reporter import GATHERING, Reporter
from corral_operator.status import EXPIRY_EVERY, View
from tests.operator import samples
from tests.operator.fake_api import FakeApi
from tests.operator.test_status import FACTS

MODEL, STATUS = paths.models("lab", "tiny"), paths.model_status("lab", "tiny")
NOW = 1_800_000_000.0


class Bench:
    def __init__(self) -> None:
        self.now = NOW
        self.api = FakeApi()
        self.api.objects[MODEL] = samples.model()
        self.store = Store()
        self.store.heard_model(samples.model(), kind="ADDED", now=NOW)
        self.reporter = Reporter(self.api, self.store, RunnerDefaults(), clock=lambda: self.now)

    def report(
        self,
        replicas: int = 1,
        *,
        expires_at: float | None = None,
        info: RunnerInfo | None = None,
        ready: bool = True,
    ) -> float | None:
        item = self.store.models.get("lab/tiny")
        assert item is not None
        pods = (parse_pod(samples.pod(ready=ready)),) if replicas else ()
        view = View(
            item=item,
            facts=item.facts,
            decision=Decision(replicas, "as planned"),
            pods=pods,
            expires_at=expires_at,
            info=info,
        )
        return asyncio.run(self.reporter.report(view))


def test_a_status_is_written_once() -> None:
    bench = Bench()
    bench.report()
    bench.report()
    assert bench.api.writes == [STATUS]


def test_a_change_of_phase_is_written_at_once() -> None:
    bench = Bench()
    bench.report(1)
    bench.report(0)
    assert bench.api.writes == [STATUS, STATUS]


def test_the_changes_of_a_model_that_loads_are_gathered_for_a_moment() -> None:
    bench = Bench()
    bench.report(0)
    held = bench.report(1, ready=False)
    assert held == pytest.approx(GATHERING)
    bench.now += GATHERING / 2
    assert bench.report(1, ready=False) == pytest.approx(GATHERING / 2)
    assert bench.api.writes == [STATUS]
    bench.now += GATHERING
    assert bench.report(1, ready=False) is None
    assert bench.api.writes == [STATUS, STATUS]


def test_readiness_is_written_at_once_whatever_is_held_back() -> None:
    bench = Bench()
    bench.report(0)
    bench.report(1, ready=False)
    assert bench.report(1) is None
    item = bench.store.models.get("lab/tiny")
    assert item is not None
    assert item.status["phase"] == "Ready"


def test_a_change_of_phase_is_told_as_an_event_on_the_model() -> None:
    bench = Bench()
    bench.report(1)
    bench.report(0)
    told = [item for path, item in bench.api.objects.items() if path.startswith(paths.events("lab"))]
    assert [event["reason"] for event in told] == ["Ready", "Idle"]
    assert dig(told[0], "involvedObject", "uid") == "uid-tiny"


def test_a_moving_expiry_alone_is_written_once_a_minute() -> None:
    bench = Bench()
    bench.report(expires_at=NOW + 300)
    bench.now += 10
    assert bench.report(expires_at=NOW + 310) == EXPIRY_EVERY - 10
    assert bench.api.writes == [STATUS]
    bench.now = NOW + EXPIRY_EVERY
    assert bench.report(expires_at=NOW + 360) is None
    assert bench.api.writes == [STATUS, STATUS]


def test_the_first_expiry_after_the_load_is_written_at_once() -> None:
    bench = Bench()
    bench.report()
    bench.now += 1
    assert bench.report(expires_at=NOW + 300) is None
    assert bench.api.writes == [STATUS, STATUS]


def test_an_expiry_that_was_withdrawn_is_written_at_once_when_it_is_back() -> None:
    bench = Bench()
    bench.report(expires_at=NOW + 300)
    bench.report(info=RunnerInfo(FACTS, parallel=4, context_length=2048))
    bench.report(expires_at=NOW + 301)
    item = bench.store.models.get("lab/tiny")
    assert item is not None
    assert item.status["expiresAt"] == format_seconds(NOW + 301)


def test_a_model_that_was_deleted_meanwhile_is_no_error() -> None:
    bench = Bench()
    del bench.api.objects[MODEL]
    assert bench.report() is None


def test_a_field_that_the_server_does_not_keep_is_not_written_for_ever() -> None:
    bench = Bench()
    bench.report()
    item = bench.store.models.get("lab/tiny")
    assert item is not None
    pruned = dataclasses.replace(item, status={**item.status, "selector": "something else"})
    bench.store.models.put(dataclasses.replace(pruned, meta=dataclasses.replace(item.meta, version=10_000)))
    bench.report()
    writes = len(bench.api.writes)
    bench.report()
    bench.report()
    assert len(bench.api.writes) == writes
