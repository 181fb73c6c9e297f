"""What gateways tell one another: the value, the board, the server and its streams, and what is remembered of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from corral_core.errors import InvalidSetting
from corral_core.metrics import render
from corral_server.gateway.admission import Holding
from corral_server.gateway.peers.exchange import PeerSettings, peers_of
from corral_server.gateway.peers.held import PATH, Board, Held
from corral_server.gateway.peers.known import Peers
from corral_server.gateway.peers.server import peer_server
from corral_server.gateway.streams import Streams
from tests.gateway.kube_objects import endpoint, endpoint_slice
from tests.support.exposition import value
from tests.support.gateway import run
from tests.support.waiting import auntil


def line(gateway: str, **waiting: int) -> dict[str, object]:
    return Held(gateway, waiting).to_json()


def scenario(test: Callable[[Peers, list[str]], object], *, silence: float = 60.0) -> None:
    async def body() -> None:
        peers, changed = Peers("me", silence=silence), list[str]()
        peers.changed = changed.append
        peers.list(["one", "two"])
        try:
            result = test(peers, changed)
            if asyncio.iscoroutine(result):
                await result
        finally:
            peers.close()

    asyncio.run(body())


def test_what_is_held_survives_the_wire() -> None:
    held = Held("g1", {"lab/tiny": 3})
    assert Held.from_json(json.loads(json.dumps(held.to_json()))) == held


@pytest.mark.parametrize("said", [{}, {"gateway": ""}, {"gateway": 3, "waiting": {}}])
def test_a_line_that_does_not_say_who_speaks_makes_no_sense(said: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="lacks its name"):
        Held.from_json(said)


def test_numbers_that_make_no_sense_count_for_nothing() -> None:
    assert Held.from_json({"gateway": "g", "waiting": {"a": -1, "b": "x", "c": 2}}) == Held("g", {"c": 2})


def test_what_all_peers_hold_is_added_up() -> None:
    def test(peers: Peers, changed: list[str]) -> None:
        peers.heard("one", line("g1", a=2, b=1))
        peers.heard("two", line("g2", a=3))
        assert (peers.total(), peers.of("a"), peers.of("b"), peers.of("c")) == (6, 5, 1, 0)
        assert set(peers.keys()) == {"a", "b"}
        assert set(peers.rivals("a")) == {"g1", "g2"}
        peers.heard("one", line("g1", b=4))
        assert (peers.total(), peers.of("a"), set(peers.rivals("a"))) == (7, 3, {"g2"})

    scenario(test)


def test_only_news_of_who_waits_are_told() -> None:
    def test(peers: Peers, changed: list[str]) -> None:
        peers.heard("one", line("g1", a=2))
        peers.heard("one", line("g1", a=3))
        assert changed == ["a"]
        peers.heard("one", line("g1"))
        assert changed == ["a", "a"]

    scenario(test)


def test_the_gateway_itself_and_strangers_do_not_count() -> None:
    def test(peers: Peers, changed: list[str]) -> None:
        peers.heard("one", line("me", a=2))
        peers.heard("three", line("g3", a=2))
        assert (peers.total(), changed) == (0, [])

    scenario(test)


def test_monitors_see_a_peer_that_is_listed_and_says_nothing() -> None:
    def test(peers: Peers, changed: list[str]) -> None:
        peers.heard("one", line("g1"))
        text = render([peers.families])
        assert value(text, "corral_gateway_peers") == 2
        assert value(text, "corral_gateway_peers_heard") == 1

    scenario(test)


def test_a_peer_that_is_not_listed_any_more_is_forgotten() -> None:
    def test(peers: Peers, changed: list[str]) -> None:
        peers.heard("one", line("g1", a=2))
        peers.list(["two"])
        assert (peers.total(), list(peers.rivals("a")), changed) == (0, [], ["a", "a"])
        assert peers.any
        peers.list([])
        assert not peers.any

    scenario(test)


def test_a_silent_peer_stops_counting_when_its_time_is_up_and_not_when_its_stream_breaks() -> None:
    async def test(peers: Peers, changed: list[str]) -> None:
        peers.heard("one", line("g1", a=2))
        peers.heard("one", None)
        assert peers.total() == 2
        await auntil(lambda: peers.total() == 0)
        assert changed == ["a", "a"]
        peers.heard("one", line("g1", a=1))
        assert peers.total() == 1

    scenario(test, silence=0.05)


def test_a_peer_that_goes_on_speaking_goes_on_counting() -> None:
    async def test(peers: Peers, changed: list[str]) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + 0.5

        def speak() -> bool:
            peers.heard("one", line("g1", a=2))
            assert peers.total() == 2
            return loop.time() > end

        await auntil(speak)
        assert changed == ["a"]

    scenario(test, silence=0.2)


@asynccontextmanager
async def served(holding: Holding) -> AsyncIterator[int]:
    async with peer_server(Board("g1", holding), "127.0.0.1", 0) as port:
        yield port


def test_what_is_held_is_told_at_every_change_and_again_when_nothing_changes() -> None:
    async def body() -> None:
        holding, heard = Holding(), list[object]()
        streams = Streams(f"{PATH}?watch=true", lambda name, said: heard.append(said), silence=5.0)
        async with served(holding) as port:
            streams.follow({"one": ("127.0.0.1", port)})
            await auntil(lambda: heard == [line("g1")])
            holding.add("a", 1)
            await auntil(lambda: heard[1:] == [line("g1", a=1)])
            holding.add("b", 2)
            holding.add("a", -1)
            await auntil(lambda: heard[2:] == [line("g1", b=2)], what="several changes are one line")
            await auntil(lambda: heard[3:] == [line("g1", b=2)], what="a heartbeat")
            await streams.close()

    run(body())


def test_all_who_watch_are_told() -> None:
    async def body() -> None:
        holding, heard = Holding(), dict[str, object]()
        streams = Streams(f"{PATH}?watch=true", lambda name, said: heard.update({name: said}), silence=5.0)
        async with served(holding) as port:
            streams.follow(dict.fromkeys(("one", "two", "three"), ("127.0.0.1", port)))
            for number in range(1, 6):
                holding.add("a", 1)
                await auntil(lambda: list(heard.values()) == [line("g1", a=number)] * 3)  # noqa: B023  awaited here
            streams.follow({"one": ("127.0.0.1", port)})
            await streams.close()

    run(body())


def test_the_port_of_the_peers_serves_nothing_else() -> None:
    async def body() -> None:
        async with served(Holding()) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            assert (await http.get(PATH)).json() == {"gateway": "g1", "waiting": {}, "uses": {}}
            for method, path in (("POST", PATH), ("GET", "/"), ("POST", "/api/chat"), ("GET", "/api/tags")):
                assert (await http.request(method, path)).status_code == 404

    run(body())


def test_a_port_that_is_taken_is_named() -> None:
    async def body() -> None:
        async with served(Holding()) as port:
            with pytest.raises(InvalidSetting, match=f"CORRAL_PEER_PORT={port}"):
                async with peer_server(Board("g2", Holding()), "127.0.0.1", port):
                    pass

    run(body())


def test_peers_are_all_other_endpoints_ready_or_not() -> None:
    slices = [
        endpoint_slice(endpoint("10.0.0.1"), endpoint("10.0.0.2", ready=False), name="a"),
        endpoint_slice(endpoint("10.0.0.2", terminating=True), endpoint("10.0.0.3"), name="b"),
    ]
    found = peers_of(slices, port=11435, own="pod-10.0.0.1")
    assert found == {"uid-10.0.0.2": ("10.0.0.2", 11435), "uid-10.0.0.3": ("10.0.0.3", 11435)}


def test_settings() -> None:
    assert PeerSettings.from_environment({}).service == ""
    named = PeerSettings.from_environment({"CORRAL_PEER_SERVICE": "lab/corral", "CORRAL_PEER_PORT": "7000"})
    assert named == PeerSettings("lab", "corral", 7000)
    for wrong in ({"CORRAL_PEER_SERVICE": "corral"}, {"CORRAL_PEER_PORT": "0"}):
        with pytest.raises(InvalidSetting):
            PeerSettings.from_environment(wrong)
