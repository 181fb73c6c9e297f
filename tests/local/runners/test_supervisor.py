from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from corral_core.model.model import Model
from corral_core.model.resource import runner_spec_digest
from corral_server.gateway.directory.directory import Endpoint
from corral_server.local.config import RunnerProcessConfig
from corral_server.local.runners.supervisor import Supervisor
from tests.local.parts import FAKE, RUNNER, RecordedLog, alive, ask, model
from tests.support.waiting import auntil, until

pytestmark = pytest.mark.process


class Supervised:
    """A Supervisor with its log and shortcuts for both."""

    def __init__(self, supervisor: Supervisor, log: RecordedLog) -> None:
        self.supervisor = supervisor
        self.log = log

    def scale(self, found: Model, replicas: int = 1) -> None:
        self.supervisor.scale(found, runner_spec_digest(found), replicas)

    async def ready(self, found: Model) -> Endpoint:
        await auntil(lambda: self.supervisor.endpoints(found.key), what="a ready runner")
        return self.supervisor.endpoints(found.key)[0]

    async def gone(self, found: Model) -> None:
        await auntil(lambda: not self.supervisor.replicas(found.key), what="the end of all runners")


@asynccontextmanager
async def group(config: RunnerProcessConfig = RUNNER) -> AsyncIterator[Supervised]:
    log = RecordedLog()
    supervisor = Supervisor(replace(config, environment=dict(os.environ)), log, lambda key: None)
    async with supervisor:
        yield Supervised(supervisor, log)


async def test_a_runner_serves_at_its_own_port() -> None:
    async with group() as made:
        made.scale(model("a"))
        made.scale(model("b"))
        first, second = await made.ready(model("a")), await made.ready(model("b"))
        assert first.port != second.port
        assert (await ask(first, "hi"))["response"] == "a says hi"
        assert (await ask(second, "hi"))["response"] == "b says hi"


async def test_a_runner_starts_with_a_model_beyond_the_kernels_limit_of_one_variable() -> None:
    found = model(spec={"template": "é" * 32768})
    async with group() as runners:
        runners.scale(found)
        await runners.ready(found)


async def test_the_slots_come_from_the_runner_status() -> None:
    async with group() as made:
        made.scale(model(slots=7))
        assert (await made.ready(model())).slots == 7


async def test_scaling_to_zero_removes_the_endpoint_at_once_and_ends_the_runner() -> None:
    async with group() as made:
        made.scale(model())
        await made.ready(model())
        made.scale(model(), 0)
        assert made.supervisor.endpoints(model().key) == ()
        await made.gone(model())
        assert made.log.events("exited")[0]["status"] == 0


async def test_a_terminating_runner_finishes_its_request(tmp_path: Path) -> None:
    async with group() as made:
        made.scale(model())
        request = asyncio.create_task(ask(await made.ready(model()), f"hold:{tmp_path / 'go'}"))
        await auntil(lambda: (said := made.supervisor.replicas(model().key)[0].status) and said.in_flight)
        made.scale(model(), 0)
        await auntil(lambda: (said := made.supervisor.replicas(model().key)[0].status) and said.draining)
        (tmp_path / "go").touch()
        assert (await request)["status"] == 200
        await made.gone(model())


async def test_a_runner_that_ignores_sigterm_is_killed() -> None:
    async with group(replace(RUNNER, drain_timeout=0.1, kill_grace=0.1)) as made:
        made.scale(model(stubborn=True))
        await made.ready(model())
        made.scale(model(), 0)
        await made.gone(model())
        assert made.log.events("exited")[0]["status"] == -signal.SIGKILL


async def test_an_interrupted_runner_is_killed_long_before_the_end_of_its_drain() -> None:
    async with group(replace(RUNNER, drain_timeout=600, kill_grace=0.2)) as made:
        made.scale(model(stubborn=True))
        await made.ready(model())
        made.supervisor.interrupt("default/m")
        assert not made.supervisor.replicas("default/m")[0].terminating, "only terminating runners are interrupted"
        made.scale(model(), 0)
        made.supervisor.interrupt("default/m")
        await made.gone(model())


async def test_a_crashed_runner_is_restarted() -> None:
    async with group() as made:
        made.scale(model())
        before = await made.ready(model())
        with pytest.raises((ConnectionError, ValueError, IndexError)):
            await ask(before, "crash")
        await auntil(lambda: made.log.events("exited"))
        assert (await made.ready(model())).id != before.id
        assert made.log.events("exited")[0]["status"] == 3


async def test_a_runner_whose_gpu_failed_is_replaced_after_its_requests() -> None:
    async with group() as made:
        made.scale(model())
        before = await made.ready(model())
        assert (await ask(before, "fail GPU"))["status"] == 200
        await auntil(lambda: made.log.events("exited"), what="the end of the runner")
        assert (await made.ready(model())).id != before.id
        assert [found["reason"] for found in made.log.events("device_failed")] == ["GPU 0 is lost"]
        assert made.supervisor.failure(model().key) is None


async def test_after_three_failed_starts_the_failure_has_the_termination_message() -> None:
    async with group(replace(RUNNER, max_backoff=60, initial_backoff=0.1)) as made:
        broken = model(fail="the weights are cursed")
        made.scale(broken)
        assert made.supervisor.failure(broken.key) is None
        failure = await auntil(lambda: made.supervisor.failure(broken.key))
        assert failure == "the model could not be loaded, 3 attempts in a row failed: the weights are cursed"
        assert len(made.log.events("started")) == 3


async def test_the_failure_ends_with_the_pause_and_a_successful_start_clears_it(tmp_path: Path) -> None:
    async with group() as made:
        broken = model(fail="not yet", fail_unless=str(tmp_path / "ok"))
        made.scale(broken)
        await auntil(lambda: made.supervisor.failure(broken.key))
        (tmp_path / "ok").touch()
        await made.ready(broken)
        assert made.supervisor.failure(broken.key) is None


async def test_a_failed_model_is_not_restarted_at_zero_replicas() -> None:
    async with group() as made:
        broken = model(fail="no")
        made.scale(broken)
        await auntil(lambda: made.supervisor.failure(broken.key))
        made.scale(broken, 0)
        await auntil(lambda: made.supervisor.failure(broken.key) is None)
        assert len(made.log.events("started")) == 3


async def test_a_command_that_cannot_be_executed_fails_with_the_reason() -> None:
    async with group(replace(RUNNER, command=("/nonexistent/runner",))) as made:
        made.scale(model())
        failure = await auntil(lambda: made.supervisor.failure(model().key))
        assert isinstance(failure, str)
        assert "/nonexistent/runner" in failure


async def test_without_a_termination_message_the_failure_has_the_last_line_of_stderr() -> None:
    command = (sys.executable, "-c", "import sys; sys.exit('a library is missing')")

    async with group(replace(RUNNER, command=command)) as made:
        made.scale(model())
        failure = await auntil(lambda: made.supervisor.failure(model().key))
        assert str(failure).endswith("a library is missing (exit status 1)")


async def test_a_load_without_progress_is_killed_and_counts_as_failed() -> None:
    async with group(replace(RUNNER, load_timeout=0.8, max_failures=1, initial_backoff=30, max_backoff=30)) as made:
        stuck = model(load_s=-1)
        made.scale(stuck)
        failure = await auntil(lambda: made.supervisor.failure(stuck.key))
        assert "no load progress for 0.8 s" in str(failure)


async def test_a_silent_runner_is_replaced() -> None:
    async with group(replace(RUNNER, silence_timeout=1.5)) as made:
        made.scale(model())
        before = await made.ready(model())
        pid = made.log.events("started")[0]["pid"]
        assert isinstance(pid, int)
        os.kill(pid, signal.SIGSTOP)
        await auntil(lambda: made.log.events("exited"))
        assert "no runner status" in str(made.log.events("exited")[0]["reason"])
        assert (await made.ready(model())).id != before.id


async def test_after_an_edit_the_old_runner_serves_until_the_new_one_is_ready(tmp_path: Path) -> None:
    async with group() as made:
        old, new = model(slots=1), model(slots=2, load_s=0.3)
        made.scale(old)
        before = await made.ready(old)
        held = asyncio.create_task(ask(before, f"hold:{tmp_path / 'go'}"))
        made.scale(new)
        assert made.supervisor.endpoints(new.key) == (before,)
        await auntil(lambda: made.supervisor.endpoints(new.key)[0].slots == 2)
        (tmp_path / "go").touch()
        assert (await held)["status"] == 200
        await auntil(lambda: len(made.supervisor.replicas(new.key)) == 1)


async def test_an_edit_that_does_not_load_keeps_the_old_runner() -> None:
    async with group() as made:
        old, new = model(slots=3), model(fail="no")
        made.scale(old)
        before = await made.ready(old)
        made.scale(new)
        await auntil(lambda: len(made.log.events("exited")) >= 3)
        assert made.supervisor.endpoints(new.key) == (before,)
        assert made.supervisor.failure(new.key) is None


async def test_a_removed_models_runner_ends() -> None:
    async with group() as made:
        made.scale(model())
        await made.ready(model())
        made.supervisor.remove(model().key)
        await made.gone(model())
        assert made.supervisor.models() == []


async def test_leaving_the_block_waits_for_the_runners() -> None:
    async with group() as made:
        made.scale(model())
        await made.ready(model())
    assert made.log.events("exited")[0]["status"] == 0


async def test_an_error_in_the_block_kills_the_runners() -> None:
    log: list[RecordedLog] = []

    async def fail_in_the_block() -> None:
        async with group() as made:
            log.append(made.log)
            made.scale(model(stubborn=True))
            await made.ready(model())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail_in_the_block()
    pid = log[0].events("started")[0]["pid"]
    assert isinstance(pid, int)
    assert not alive(pid)


async def test_a_runners_events_are_relayed_with_their_time_and_the_models_name() -> None:
    async with group() as made:
        made.scale(model("llama", fail="no"))
        output = await auntil(lambda: made.log.events("output"))
        assert output[0]["text"] == "warning of a library"
        made.scale(model("qwen"))
        loaded = await auntil(lambda: made.log.events("loaded"))
        assert loaded[0]["model"] == "qwen"


def test_runners_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    program = """
        import asyncio, os, sys, uvloop
        from dataclasses import replace
        from corral_core.model.resource import runner_spec_digest
        from corral_server.local.event_log import EventLog
        from corral_server.local.runners.supervisor import Supervisor
        from tests.local.parts import RUNNER, model

        async def main():
            config = replace(RUNNER, environment=dict(os.environ))
            async with Supervisor(config, EventLog(sys.stderr, human=False), lambda key: None) as supervisor:
                for name in "abc":
                    supervisor.scale(model(name), runner_spec_digest(model(name)), 1)
                while not all(supervisor.endpoints(model(name).key) for name in "abc"):
                    await asyncio.sleep(0.01)
                print("ready", flush=True)
                await asyncio.sleep(600)

        uvloop.run(main())
    """
    root = Path(FAKE[1]).parent.parent.parent
    parent = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=root
    )
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        children = children_of(parent.pid)
        assert len(children) == 3
    finally:
        parent.kill()
        parent.communicate()
    until(lambda: not any(alive(pid) for pid in children), what="the end of the runners")


def children_of(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]
