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

from corral_core.model import Model
from corral_core.resource import serving_digest
from corral_server.gateway.directory import Endpoint
from corral_server.local.config import RunnerConfig
from corral_server.local.supervisor import Supervisor
from tests.local.parts import FAKE, RUNNER, Heard, alive, ask, model, run
from tests.support.waiting import auntil, until

pytestmark = pytest.mark.process


class Crew:
    """A Supervisor with its log, and short ways to use both."""

    def __init__(self, supervisor: Supervisor, log: Heard) -> None:
        self.supervisor = supervisor
        self.log = log

    def scale(self, found: Model, replicas: int = 1) -> None:
        self.supervisor.scale(found, serving_digest(found), replicas)

    async def ready(self, found: Model) -> Endpoint:
        await auntil(lambda: self.supervisor.endpoints(found.key), what="a ready runner")
        return self.supervisor.endpoints(found.key)[0]

    async def gone(self, found: Model) -> None:
        await auntil(lambda: not self.supervisor.replicas(found.key), what="the end of all runners")


@asynccontextmanager
async def crew(config: RunnerConfig = RUNNER) -> AsyncIterator[Crew]:
    log = Heard()
    supervisor = Supervisor(replace(config, environment=dict(os.environ)), log, lambda key: None)
    async with supervisor:
        yield Crew(supervisor, log)


def test_a_runner_starts_and_serves_at_its_own_port() -> None:
    async def test() -> None:
        async with crew() as made:
            made.scale(model("a"))
            made.scale(model("b"))
            first, second = await made.ready(model("a")), await made.ready(model("b"))
            assert first.port != second.port
            assert (await ask(first, "hi"))["response"] == "a says hi"
            assert (await ask(second, "hi"))["response"] == "b says hi"

    run(test())


def test_the_slots_are_what_the_runner_says() -> None:
    async def test() -> None:
        async with crew() as made:
            made.scale(model(slots=7))
            assert (await made.ready(model())).slots == 7

    run(test())


def test_scaling_to_zero_ends_the_runner_and_its_endpoint_is_gone_at_once() -> None:
    async def test() -> None:
        async with crew() as made:
            made.scale(model())
            await made.ready(model())
            made.scale(model(), 0)
            assert made.supervisor.endpoints(model().key) == ()
            await made.gone(model())
            assert made.log.events("exited")[0]["status"] == 0

    run(test())


def test_a_runner_that_is_told_to_end_ends_its_request_first(tmp_path: Path) -> None:
    async def test() -> None:
        async with crew() as made:
            made.scale(model())
            request = asyncio.create_task(ask(await made.ready(model()), f"hold:{tmp_path / 'go'}"))
            await auntil(lambda: (said := made.supervisor.replicas(model().key)[0].activity) and said.in_flight)
            made.scale(model(), 0)
            await auntil(lambda: (said := made.supervisor.replicas(model().key)[0].activity) and said.draining)
            (tmp_path / "go").touch()
            assert (await request)["status"] == 200
            await made.gone(model())

    run(test())


def test_a_runner_that_does_not_end_is_killed() -> None:
    async def test() -> None:
        async with crew(replace(RUNNER, drain_timeout=0.1, kill_grace=0.1)) as made:
            made.scale(model(stubborn=True))
            await made.ready(model())
            made.scale(model(), 0)
            await made.gone(model())
            assert made.log.events("exited")[0]["status"] == -signal.SIGKILL

    run(test())


def test_a_runner_that_crashes_is_started_again() -> None:
    async def test() -> None:
        async with crew() as made:
            made.scale(model())
            before = await made.ready(model())
            with pytest.raises((ConnectionError, ValueError, IndexError)):
                await ask(before, "crash")
            await auntil(lambda: made.log.events("exited"))
            assert (await made.ready(model())).id != before.id
            assert made.log.events("exited")[0]["status"] == 3

    run(test())


def test_after_three_failed_starts_the_model_has_a_failure_with_the_runners_own_words() -> None:
    async def test() -> None:
        async with crew(replace(RUNNER, longest_backoff=60, first_backoff=0.1)) as made:
            broken = model(fail="the weights are cursed")
            made.scale(broken)
            assert made.supervisor.failure(broken.key) is None
            failure = await auntil(lambda: made.supervisor.failure(broken.key))
            assert failure == "the model could not be loaded, 3 tries in a row failed: the weights are cursed"
            assert len(made.log.events("started")) == 3

    run(test())


def test_the_failure_ends_with_the_pause_and_a_start_that_works_ends_it_for_good(tmp_path: Path) -> None:
    async def test() -> None:
        async with crew() as made:
            broken = model(fail="not yet", fail_unless=str(tmp_path / "ok"))
            made.scale(broken)
            await auntil(lambda: made.supervisor.failure(broken.key))
            (tmp_path / "ok").touch()
            await made.ready(broken)
            assert made.supervisor.failure(broken.key) is None

    run(test())


def test_a_failed_model_is_not_started_while_nobody_wants_it() -> None:
    async def test() -> None:
        async with crew() as made:
            broken = model(fail="no")
            made.scale(broken)
            await auntil(lambda: made.supervisor.failure(broken.key))
            made.scale(broken, 0)
            await auntil(lambda: made.supervisor.failure(broken.key) is None)
            assert len(made.log.events("started")) == 3

    run(test())


def test_a_runner_that_cannot_be_started_at_all_fails_with_the_reason() -> None:
    async def test() -> None:
        async with crew(replace(RUNNER, command=("/nonexistent/runner",))) as made:
            made.scale(model())
            failure = await auntil(lambda: made.supervisor.failure(model().key))
            assert isinstance(failure, str)
            assert "/nonexistent/runner" in failure

    run(test())


def test_without_last_words_the_failure_has_the_last_line_of_its_errors() -> None:
    command = (sys.executable, "-c", "import sys; sys.exit('a library is missing')")

    async def test() -> None:
        async with crew(replace(RUNNER, command=command)) as made:
            made.scale(model())
            failure = await auntil(lambda: made.supervisor.failure(model().key))
            assert str(failure).endswith("a library is missing (exit status 1)")

    run(test())


def test_a_load_without_progress_is_killed_and_counts_as_failed() -> None:
    async def test() -> None:
        async with crew(replace(RUNNER, load_timeout=0.8, tries=1, first_backoff=30, longest_backoff=30)) as made:
            stuck = model(load_s=-1)
            made.scale(stuck)
            failure = await auntil(lambda: made.supervisor.failure(stuck.key))
            assert "loading made no progress for 0.8 s" in str(failure)

    run(test())


def test_a_loaded_runner_that_falls_silent_is_replaced() -> None:
    async def test() -> None:
        async with crew(replace(RUNNER, silence_timeout=1.5)) as made:
            made.scale(model())
            before = await made.ready(model())
            pid = made.log.events("started")[0]["pid"]
            assert isinstance(pid, int)
            os.kill(pid, signal.SIGSTOP)
            await auntil(lambda: made.log.events("exited"))
            assert "silent" in str(made.log.events("exited")[0]["reason"])
            assert (await made.ready(model())).id != before.id

    run(test())


def test_when_the_served_spec_changes_the_old_runner_serves_until_the_new_one_is_ready(tmp_path: Path) -> None:
    async def test() -> None:
        async with crew() as made:
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

    run(test())


def test_a_new_spec_that_does_not_load_leaves_the_old_runner_serving() -> None:
    async def test() -> None:
        async with crew() as made:
            old, new = model(slots=3), model(fail="no")
            made.scale(old)
            before = await made.ready(old)
            made.scale(new)
            await auntil(lambda: len(made.log.events("exited")) >= 3)
            assert made.supervisor.endpoints(new.key) == (before,)
            assert made.supervisor.failure(new.key) is None

    run(test())


def test_a_removed_models_runner_ends() -> None:
    async def test() -> None:
        async with crew() as made:
            made.scale(model())
            await made.ready(model())
            made.supervisor.remove(model().key)
            await made.gone(model())
            assert made.supervisor.models() == []

    run(test())


def test_the_end_of_the_block_waits_for_the_runners() -> None:
    async def test() -> Heard:
        async with crew() as made:
            made.scale(model())
            await made.ready(model())
        return made.log

    assert run(test()).events("exited")[0]["status"] == 0


def test_an_error_in_the_block_kills_the_runners() -> None:
    async def test(log: list[Heard]) -> None:
        async with crew() as made:
            log.append(made.log)
            made.scale(model(stubborn=True))
            await made.ready(model())
            raise ZeroDivisionError

    log: list[Heard] = []
    with pytest.raises(ZeroDivisionError):
        run(test(log))
    pid = log[0].events("started")[0]["pid"]
    assert isinstance(pid, int)
    assert not alive(pid)


def test_what_a_runner_logs_is_relayed_with_its_own_time_and_the_models_name() -> None:
    async def test() -> None:
        async with crew() as made:
            made.scale(model("llama", fail="no"))
            complaints = await auntil(lambda: made.log.events("output"))
            assert complaints[0]["text"] == "a library complains"
            made.scale(model("qwen"))
            loaded = await auntil(lambda: made.log.events("loaded"))
            assert loaded[0]["model"] == "qwen"

    run(test())


def test_no_runner_survives_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = """
        import asyncio, os, sys
        from dataclasses import replace
        from corral_core.resource import serving_digest
        from corral_server.local.logs import EventLog
        from corral_server.local.supervisor import Supervisor
        from tests.local.parts import RUNNER, model, run

        async def main():
            config = replace(RUNNER, environment=dict(os.environ))
            async with Supervisor(config, EventLog(sys.stderr, human=False), lambda key: None) as supervisor:
                for name in "abc":
                    supervisor.scale(model(name), serving_digest(model(name)), 1)
                while not all(supervisor.endpoints(model(name).key) for name in "abc"):
                    await asyncio.sleep(0.01)
                print("ready", flush=True)
                await asyncio.sleep(600)

        run(main())
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
