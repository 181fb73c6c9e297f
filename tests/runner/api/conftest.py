"""A runner with a fake engine, one per module, and its engine in the initial state for each test.

Tests that need another template, metadata or engine serve their own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import ServedRunner, serving


@pytest.fixture(scope="module")
def shared_engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture(scope="module")
def shared_runner(shared_engine: FakeEngine) -> Iterator[ServedRunner]:
    with serving(shared_engine) as runner:
        yield runner


@pytest.fixture
def engine(shared_engine: FakeEngine) -> FakeEngine:
    shared_engine.script = ("Hello", ", world")
    shared_engine.reason = "stop"
    shared_engine.tasks.clear()
    return shared_engine


@pytest.fixture
def runner(shared_runner: ServedRunner, engine: FakeEngine) -> ServedRunner:
    return shared_runner
