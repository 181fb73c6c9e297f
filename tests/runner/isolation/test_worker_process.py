"""The worker process: limits, replacement, and what it inherits from the runner."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextvars import copy_context
from pathlib import Path

import pytest

from corral_server.runner.isolation.worker_process import (
    WorkerFailed,
    WorkerOutOfMemory,
    WorkerProcess,
    WorkerTimeout,
)
from corral_server.runner.memory.budget import RequestMemory, Reservation, set_current_reservation
from corral_server.runner.sampling.lark import json_grammar
from corral_server.wire.errors import ApiError
from tests.support.waiting import until

pytestmark = pytest.mark.process

MIB = 1 << 20
GRAMMAR = {"rules": 'start: "x"', "markers": []}


@pytest.fixture
def worker() -> Iterator[WorkerProcess]:
    worker = WorkerProcess()
    yield worker
    worker.close()


def process_id(worker: WorkerProcess) -> int:
    assert worker.process_id is not None
    return worker.process_id


def test_one_worker_serves_many_requests(worker: WorkerProcess) -> None:
    assert worker.process_id is None
    worker.call("grammar", GRAMMAR, seconds=10)
    first = worker.process_id
    worker.call("grammar", GRAMMAR, seconds=10)
    assert worker.process_id == first


def test_a_request_over_its_cpu_time_is_ended_and_the_next_one_is_served(worker: WorkerProcess) -> None:
    patterns = json_grammar({"type": "string", "allOf": [{"pattern": f".*{n}.*"} for n in range(16)]})
    context = copy_context()
    context.run(set_current_reservation, Reservation(RequestMemory(1 << 30)))
    with pytest.raises(WorkerTimeout, match="time limit"):
        context.run(worker.call, "grammar", {"rules": patterns.rules, "markers": []}, seconds=0.1)
    worker.call("grammar", GRAMMAR, seconds=10)


def test_the_worker_gets_no_more_memory_than_the_budget_of_requests_has(worker: WorkerProcess) -> None:
    memory = RequestMemory(256 * MIB)
    others = Reservation(memory)
    others.grow(16 * MIB)
    context = copy_context()
    context.run(set_current_reservation, Reservation(memory))
    schema = {"type": "string", "allOf": [{"pattern": f".*{n}.*"} for n in range(30)]}
    with pytest.raises(WorkerOutOfMemory, match="memory limit of 88 MiB"):
        context.run(worker.call, "grammar", {"rules": json_grammar(schema).rules, "markers": []}, seconds=10)
    context.run(worker.call, "grammar", GRAMMAR, seconds=10)
    assert memory.used == 16 * MIB
    others.grow(130 * MIB)
    with pytest.raises(ApiError) as refused:
        context.run(worker.call, "grammar", GRAMMAR, seconds=10)
    assert (refused.value.status, refused.value.retry_after) == (503, 5)
    assert memory.used == 146 * MIB


def test_a_failed_request_names_the_error_and_the_next_one_is_served(worker: WorkerProcess) -> None:
    with pytest.raises(WorkerFailed, match="KeyError"):
        worker.call("nothing", {}, seconds=10)
    worker.call("grammar", GRAMMAR, seconds=10)


def test_a_worker_that_was_killed_while_idle_is_replaced(worker: WorkerProcess) -> None:
    worker.call("grammar", GRAMMAR, seconds=10)
    first = process_id(worker)
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    worker.call("grammar", GRAMMAR, seconds=10)
    assert worker.process_id != first


def test_the_worker_has_no_setting_of_the_runner(worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORRAL_MODEL", "a secret")
    worker.call("grammar", GRAMMAR, seconds=10)
    assert b"CORRAL" not in Path(f"/proc/{process_id(worker)}/environ").read_bytes()


def test_the_worker_yields_to_the_runner(worker: WorkerProcess) -> None:
    worker.call("grammar", GRAMMAR, seconds=10)
    assert os.getpriority(os.PRIO_PROCESS, process_id(worker)) >= min(19, os.getpriority(os.PRIO_PROCESS, 0) + 5)
    assert Path(f"/proc/{process_id(worker)}/oom_score_adj").read_text() == "1000\n"


def test_the_worker_ends_with_the_runner() -> None:
    program = (
        "import os; from corral_server.runner.isolation.worker_process import shared_worker as s;"
        f"s().call('grammar', {GRAMMAR!r}, seconds=10); print(s().process_id, flush=True); os._exit(0)"
    )
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    until(lambda: not is_running(int(output)), what="the worker's end")


def is_running(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
