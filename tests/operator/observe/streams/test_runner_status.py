"""Runner status streams of runners that start, fall silent, break off and end."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Mapping

import pytest
from aiohttp import web

from corral_core.contracts.runner_status import RunnerStatus
from corral_operator.observe.streams.pod_streams import FollowedPod
from corral_operator.observe.streams.runner_info import RunnerInfo
from corral_operator.observe.streams.runner_status import RunnerStatusStreams
from tests.operator import samples
from tests.support.waiting import auntil

MODEL = "team/tiny"


class FakeRunner:
    """HTTP server of a runner on loopback, which streams what is put into ``lines``; None ends the stream.

    It sends statuses with its own clock, ``clock_offset`` seconds ahead.
    """

    def __init__(self) -> None:
        self.lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.streams = 0
        self.url = ""
        self.clock_offset = 0.0
        self.info_body = json.dumps({"metadata": samples.METADATA.to_json(), "parallel": 4, "contextLength": 2048})
        self.requests: list[Mapping[str, str]] = []

    def send(self, status: RunnerStatus) -> None:
        """Send a status with times of this process's clock."""
        offset = self.clock_offset
        own = dataclasses.replace(
            status,
            last_end=None if status.last_end is None else status.last_end + offset,
            expires_at=None if status.expires_at is None else status.expires_at + offset,
        )
        self.lines.put_nowait(json.dumps(own.to_json(time.time() + offset)).encode() + b"\n")

    async def activity(self, request: web.Request) -> web.StreamResponse:
        self.streams += 1
        self.requests.append(request.headers)
        response = web.StreamResponse()
        response.set_cookie("runner", "1")
        await response.prepare(request)
        while (line := await self.lines.get()) is not None:
            await response.write(line)
        return response

    async def info(self, request: web.Request) -> web.Response:
        self.requests.append(request.headers)
        return web.Response(text=self.info_body)


class Received:
    def __init__(self) -> None:
        self.statuses: list[RunnerStatus | None] = []
        self.infos: list[RunnerInfo] = []


@pytest.fixture
async def runner() -> AsyncIterator[FakeRunner]:
    fake = FakeRunner()
    app = web.Application()
    app.add_routes([web.get("/activity", fake.activity), web.get("/info", fake.info)])
    server = web.AppRunner(app, shutdown_timeout=0.1)
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    fake.url = f"http://127.0.0.1:{server.addresses[0][1]}"
    yield fake
    await server.cleanup()


@pytest.fixture
def received() -> Received:
    return Received()


@pytest.fixture
async def streams(runner: FakeRunner, received: Received) -> AsyncIterator[RunnerStatusStreams]:
    opened = RunnerStatusStreams(
        lambda uid, status: received.statuses.append(status), lambda uid, info: received.infos.append(info)
    )
    opened.follow({"uid-1": FollowedPod(runner.url, MODEL)})
    yield opened
    await opened.close()


@pytest.mark.usefixtures("streams")
async def test_every_status_is_received(runner: FakeRunner, received: Received) -> None:
    for in_flight in (1, 0):
        runner.send(samples.runner_status(in_flight=in_flight))
    await auntil(lambda: len(received.statuses) == 2)
    assert [status.in_flight if status else None for status in received.statuses] == [1, 0]


@pytest.mark.usefixtures("streams")
async def test_the_info_of_a_runner_is_fetched_once_after_it_has_loaded(runner: FakeRunner, received: Received) -> None:
    runner.send(samples.runner_status(loaded=False))
    await auntil(lambda: received.statuses)
    assert received.infos == []
    for _ in range(2):
        runner.send(samples.runner_status())
    await auntil(lambda: len(received.statuses) == 3)
    assert [(info.parallel, info.metadata) for info in received.infos] == [(4, samples.METADATA)]


@pytest.mark.usefixtures("streams")
async def test_every_request_names_the_model_whose_runner_is_expected(runner: FakeRunner, received: Received) -> None:
    runner.send(samples.runner_status())
    await auntil(lambda: received.infos)
    assert [headers["corral-model-identity"] for headers in runner.requests] == [MODEL, MODEL]


@pytest.mark.usefixtures("streams")
async def test_a_stream_that_ends_withdraws_the_status_and_is_reopened(runner: FakeRunner, received: Received) -> None:
    runner.send(samples.runner_status())
    runner.lines.put_nowait(None)
    await auntil(lambda: runner.streams == 2)
    assert received.statuses[1:2] == [None]
    runner.send(samples.runner_status(in_flight=1))
    await auntil(lambda: received.statuses[-1])


async def test_a_silent_runner_is_unreachable(runner: FakeRunner, received: Received) -> None:
    opened = RunnerStatusStreams(
        lambda uid, status: received.statuses.append(status), lambda uid, info: None, silence=0.1
    )
    opened.follow({"uid-1": FollowedPod(runner.url, MODEL)})
    runner.send(samples.runner_status())
    await auntil(lambda: received.statuses[-1:] == [None])
    await opened.close()


async def test_the_stream_of_a_runner_that_is_gone_is_closed(
    runner: FakeRunner, received: Received, streams: RunnerStatusStreams
) -> None:
    runner.send(samples.runner_status())
    await auntil(lambda: received.statuses)
    streams.follow({})
    await auntil(lambda: received.statuses[-1] is None)


VALID = samples.runner_status().to_json(0.0)


def line(**changed: object) -> bytes:
    return json.dumps({**VALID, **changed}).encode() + b"\n"


INVALID = {
    "not JSON": b"oh\n",
    "not UTF-8": b"\xff\xfe\n",
    "not an object": b"[1]\n",
    "no fields": b"{}\n",
    "wrong type": line(slots="many"),
    "negative": line(in_flight=-1),
    "too many": line(in_flight=10**30),
    "not a number": line(expires_in_s=float("nan")),
    "infinite": line(keep_alive_s=float("inf")),
    "overflowing number": line(in_flight=0).replace(b'"in_flight": 0', b'"in_flight": 1e999'),
    "long integer": line(in_flight=0).replace(b'"in_flight": 0', b'"in_flight": ' + b"9" * 5_000),
    "far future": line(expires_in_s=1e300),
    "far past": line(idle_s=1e300),
    "deep nesting": b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"\n",
    "deep list": b"[" * 60_000 + b"\n",
    "half a surrogate pair": line(devices=[]).replace(b"[]", b'"\\ud800"'),
    "huge line": b" " * (1 << 20) + b"{}\n",
}


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize("bad", INVALID.values(), ids=INVALID.keys())
async def test_an_invalid_line_makes_the_runner_unreachable_until_a_stream_delivers_a_status(
    runner: FakeRunner, received: Received, bad: bytes
) -> None:
    runner.send(samples.runner_status())
    runner.lines.put_nowait(bad)
    await auntil(lambda: received.statuses[-1:] == [None])
    runner.lines.put_nowait(None)  # the server ends its side of the broken stream
    await auntil(lambda: runner.streams == 2)
    runner.send(samples.runner_status(in_flight=1))
    await auntil(lambda: received.statuses[-1])
    assert [status.in_flight if status else None for status in received.statuses] == [0, None, 1]


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize(
    "body",
    [
        "[" * 10_000,
        '{"metadata": {"size": 1e999}}',
        json.dumps({"metadata": {**samples.METADATA.to_json(), "size": 10**400}}),
        " " * (2 << 20),
    ],
    ids=["deep", "overflow", "long", "huge"],
)
async def test_invalid_info_makes_the_runner_unreachable_until_it_is_valid(
    runner: FakeRunner, received: Received, body: str
) -> None:
    valid, runner.info_body = runner.info_body, body
    runner.send(samples.runner_status())
    await auntil(lambda: received.statuses[-1:] == [None])
    assert received.infos == []
    runner.info_body = valid
    runner.lines.put_nowait(None)
    await auntil(lambda: runner.streams == 2)
    runner.send(samples.runner_status())
    await auntil(lambda: received.infos)


@pytest.mark.usefixtures("streams")
async def test_streams_that_end_at_once_are_reopened_with_growing_pauses(
    monkeypatch: pytest.MonkeyPatch, runner: FakeRunner
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def recorded(seconds: float) -> None:
        if asyncio.current_task() is not test:
            pauses.append(seconds)
        await sleep(0)

    test = asyncio.current_task()
    monkeypatch.setattr(asyncio, "sleep", recorded)
    for _ in range(4):
        runner.send(samples.runner_status())
        runner.lines.put_nowait(b"bad\n")
        runner.lines.put_nowait(None)
    await auntil(lambda: len(pauses) >= 4)
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]


@pytest.mark.usefixtures("streams")
async def test_a_stream_is_reopened_after_an_error_of_the_listener(
    runner: FakeRunner, received: Received, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(list[RunnerStatus | None]):
        def append(self, status: RunnerStatus | None) -> None:
            if status is not None:
                raise RuntimeError("a fault of the operator")

    received.statuses, working = Broken(), received.statuses
    runner.send(samples.runner_status())
    runner.lines.put_nowait(None)
    await auntil(lambda: runner.streams == 2)
    received.statuses = working
    runner.send(samples.runner_status())
    await auntil(lambda: received.statuses)


async def test_redirects_and_cookies_of_a_runner_are_not_followed(runner: FakeRunner, received: Received) -> None:
    async def redirect(request: web.Request) -> web.Response:
        raise web.HTTPFound(f"{runner.url}/activity?watch=true")

    app = web.Application()
    app.add_routes([web.get("/activity", redirect)])
    server = web.AppRunner(app, shutdown_timeout=0.1)
    await server.setup()
    await web.TCPSite(server, "127.0.0.1", 0).start()
    opened = RunnerStatusStreams(lambda uid, status: received.statuses.append(status), lambda uid, info: None)
    address = f"http://127.0.0.1:{server.addresses[0][1]}"
    opened.follow({"uid-1": FollowedPod(address, MODEL), "uid-2": FollowedPod(runner.url, MODEL)})
    runner.send(samples.runner_status())
    runner.lines.put_nowait(None)
    await auntil(lambda: runner.streams >= 2)
    assert not any("cookie" in headers for headers in runner.requests)
    assert runner.streams == 2
    await opened.close()
    await server.cleanup()


@pytest.mark.usefixtures("streams")
@pytest.mark.parametrize("offset", [-300.0, 300.0])
async def test_the_clock_of_a_runner_does_not_matter(runner: FakeRunner, received: Received, offset: float) -> None:
    runner.clock_offset = offset
    now = time.time()
    runner.send(dataclasses.replace(samples.runner_status(expires_at=now + 60), last_end=now - 10))
    await auntil(lambda: received.statuses)
    status = received.statuses[0]
    assert status is not None
    assert status.expires_at == pytest.approx(now + 60, abs=2)
    assert status.last_end == pytest.approx(now - 10, abs=2)


@pytest.mark.usefixtures("streams")
async def test_the_expiry_of_an_unchanged_runner_does_not_move_with_each_heartbeat(
    runner: FakeRunner, received: Received
) -> None:
    expiry = time.time() + 60
    for late in (0.0, 0.1, -0.1, 0.2):  # seconds that a line takes longer to arrive
        runner.send(samples.runner_status(expires_at=expiry + late))
    await auntil(lambda: len(received.statuses) == 4)
    assert len({status.expires_at for status in received.statuses if status}) == 1
