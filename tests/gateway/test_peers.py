"""Peers: usage reports, publisher, server, streams, and the usage of the peers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.base.errors import InvalidSetting
from corral_server.gateway.peers.peer_usage import Peers
from corral_server.gateway.peers.server import peer_server
from corral_server.gateway.peers.sync import PeerSettings, peer_addresses
from corral_server.gateway.peers.usage import MAX_COUNT, MAX_TOKENS, PATH, UsagePublisher, UsageReport
from corral_server.gateway.queueing.admission import GatewayUsage
from corral_server.gateway.upstream.json_lines import JsonLineStreams, Source
from tests.gateway.kube_objects import endpoint, endpoint_slice
from tests.support.exposition import expose_text, sample_value
from tests.support.waiting import auntil


def line(gateway: str, **waiting: int) -> dict[str, object]:
    return UsageReport(gateway, waiting, namespaces={key: {"": number} for key, number in waiting.items()}).to_json()


@asynccontextmanager
async def two_peers(*, timeout: float = 60.0) -> AsyncIterator[tuple[Peers, list[str]]]:
    """Yield Peers with the members "one" and "two", and the list of notified changes."""
    peers, changed = Peers("me", timeout=timeout), list[str]()
    peers.on_pending_change = changed.append
    peers.set_members(["one", "two"])
    try:
        yield peers, changed
    finally:
        peers.close()


def test_a_usage_report_survives_a_json_round_trip() -> None:
    held = UsageReport("g1", {"lab/tiny": 3}, namespaces={"lab/tiny": {"lab": 1, "team": 2}})
    assert UsageReport.from_json(json.loads(json.dumps(held.to_json()))) == held


@pytest.mark.parametrize("said", [{}, {"gateway": ""}, {"gateway": 3, "pending": {}}])
def test_a_usage_report_without_a_name_is_invalid(said: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="lacks the name"):
        UsageReport.from_json(said)


def test_invalid_numbers_in_a_usage_report_count_as_zero() -> None:
    assert UsageReport.from_json({"gateway": "g", "pending": {"a": -1, "b": "x", "c": 2}}) == UsageReport(
        "g", {"c": 2}, namespaces={"c": {"c": 2}}
    )


def test_pending_requests_are_counted_by_their_namespace() -> None:
    namespaces = {"lab/a": {"lab": 1, "team": 2}, "lab/b": {"lab": 1}}
    report = UsageReport("g", {"lab/a": 3, "lab/b": 1}, namespaces=namespaces)
    assert UsageReport.from_json(report.to_json()) == report
    older = {"gateway": "g", "pending": {"lab/a": 3, "lab/b": 1}}
    assert UsageReport.from_json(older).namespaces == {"lab/a": {"lab": 3}, "lab/b": {"lab": 1}}


async def test_the_usage_of_all_peers_is_added() -> None:
    async with two_peers() as (peers, _):
        peers.receive("one", line("g1", a=2, b=1))
        peers.receive("two", line("g2", a=3))
        assert (peers.pending_total(), peers.pending_for("a"), peers.pending_for("b"), peers.pending_for("c")) == (
            6,
            5,
            1,
            0,
        )
        assert peers.pending_by_namespace() == {"a": {"": 5}, "b": {"": 1}}
        assert set(peers.contenders("a")) == {"g1", "g2"}
        peers.receive("one", line("g1", b=4))
        assert (peers.pending_total(), peers.pending_for("a"), set(peers.contenders("a"))) == (7, 3, {"g2"})


async def test_a_change_between_zero_and_non_zero_is_notified() -> None:
    async with two_peers() as (peers, changed):
        peers.receive("one", line("g1", a=2))
        peers.receive("one", line("g1", a=3))
        assert changed == ["a"]
        peers.receive("one", line("g1"))
        assert changed == ["a", "a"]


async def test_reports_of_the_gateway_itself_and_of_non_members_are_ignored() -> None:
    async with two_peers() as (peers, changed):
        peers.receive("one", line("me", a=2))
        peers.receive("three", line("g3", a=2))
        assert (peers.pending_total(), changed) == (0, [])


async def test_metrics_show_a_peer_without_reports() -> None:
    async with two_peers() as (peers, _):
        peers.receive("one", line("g1"))
        text = expose_text(peers.families)
        assert sample_value(text, "corral_gateway_peers") == 2
        assert sample_value(text, "corral_gateway_peers_reporting") == 1


async def test_a_peer_that_is_no_member_any_more_is_removed() -> None:
    async with two_peers() as (peers, changed):
        peers.receive("one", line("g1", a=2))
        peers.set_members(["two"])
        assert (peers.pending_total(), list(peers.contenders("a")), changed) == (0, [], ["a", "a"])
        assert peers.has_peers
        peers.set_members([])
        assert not peers.has_peers


async def test_a_peer_counts_until_its_timeout_even_if_its_stream_breaks() -> None:
    async with two_peers(timeout=0.05) as (peers, changed):
        peers.receive("one", line("g1", a=2))
        peers.receive("one", None)
        assert peers.pending_total() == 2
        await auntil(lambda: peers.pending_total() == 0)
        assert changed == ["a", "a"]
        peers.receive("one", line("g1", a=1))
        assert peers.pending_total() == 1


async def test_a_peer_that_keeps_reporting_keeps_counting() -> None:
    async with two_peers(timeout=0.2) as (peers, changed):
        loop = asyncio.get_running_loop()
        end = loop.time() + 0.5

        def speak() -> bool:
            peers.receive("one", line("g1", a=2))
            assert peers.pending_total() == 2
            return loop.time() > end

        await auntil(speak)
        assert changed == ["a"]


@asynccontextmanager
async def served(usage: GatewayUsage) -> AsyncIterator[int]:
    async with peer_server(UsagePublisher("g1", usage), "127.0.0.1", 0) as port:
        yield port


def source(port: int) -> Source:
    return Source("127.0.0.1", port, f"{PATH}?watch=true")


async def test_usage_is_published_at_every_change_and_heartbeat() -> None:
    usage, received = GatewayUsage(), list[object]()
    streams = JsonLineStreams(lambda name, said: received.append(said), read_timeout=5.0)
    async with served(usage) as port:
        streams.follow({"one": source(port)})
        await auntil(lambda: received == [line("g1")])
        usage.add("a", 1)
        await auntil(lambda: received[1:] == [line("g1", a=1)])
        usage.add("b", 2)
        usage.add("a", -1)
        await auntil(lambda: received[2:] == [line("g1", b=2)], what="several changes are one line")
        await auntil(lambda: received[3:] == [line("g1", b=2)], what="a heartbeat")
        await streams.close()


async def test_usage_is_published_to_all_watchers() -> None:
    usage, received = GatewayUsage(), dict[str, object]()
    streams = JsonLineStreams(lambda name, said: received.update({name: said}), read_timeout=5.0)
    async with served(usage) as port:
        streams.follow(dict.fromkeys(("one", "two", "three"), source(port)))
        for number in range(1, 6):
            usage.add("a", 1)
            await auntil(lambda: list(received.values()) == [line("g1", a=number)] * 3)  # noqa: B023  awaited here
        streams.follow({"one": source(port)})
        await streams.close()


async def test_the_peer_port_serves_only_usage_reports() -> None:
    async with served(GatewayUsage()) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        empty: dict[str, object] = {name: {} for name in ("pending", "key_usage", "key_tokens", "namespaces")}
        assert (await http.get(PATH)).json() == {"gateway": "g1", **empty}
        for method, path in (("POST", PATH), ("GET", "/"), ("POST", "/api/chat"), ("GET", "/api/tags")):
            assert (await http.request(method, path)).status_code == 404


async def test_a_port_in_use_is_a_setting_error() -> None:
    async with served(GatewayUsage()) as port:
        with pytest.raises(InvalidSetting, match=f"CORRAL_PEER_PORT={port}"):
            async with peer_server(UsagePublisher("g2", GatewayUsage()), "127.0.0.1", port):
                pass


def test_peers_are_all_other_endpoints_ready_or_not() -> None:
    slices = [
        endpoint_slice(endpoint("10.0.0.1"), endpoint("10.0.0.2", ready=False), name="a"),
        endpoint_slice(endpoint("10.0.0.2", terminating=True), endpoint("10.0.0.3"), name="b"),
    ]
    found = peer_addresses(slices, port=11435, own="pod-10.0.0.1")
    assert found == {"uid-10.0.0.2": ("10.0.0.2", 11435), "uid-10.0.0.3": ("10.0.0.3", 11435)}


def test_settings() -> None:
    assert PeerSettings.from_environment({}).service == ""
    named = PeerSettings.from_environment({"CORRAL_PEER_SERVICE": "lab/corral", "CORRAL_PEER_PORT": "7000"})
    assert named == PeerSettings("lab", "corral", 7000)
    for wrong in ({"CORRAL_PEER_SERVICE": "corral"}, {"CORRAL_PEER_PORT": "0"}):
        with pytest.raises(InvalidSetting):
            PeerSettings.from_environment(wrong)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["gateway", "pending", "key_usage", "key_tokens", "namespaces"]), JSON))
def test_whatever_a_peer_sends_is_a_bounded_report_or_a_value_error(sent: dict[str, object]) -> None:
    try:
        report = UsageReport.from_json(sent)
    except ValueError:
        return
    counts = [*report.pending.values(), *(number for pair in report.key_usage.values() for number in pair)]
    counts += [number for pending in report.namespaces.values() for number in pending.values()]
    assert 0 < len(report.gateway) <= 253
    assert all(0 <= count <= MAX_COUNT for count in counts)
    assert all(0 <= number <= MAX_TOKENS for pair in report.key_tokens.values() for number in pair)
    assert UsageReport.from_json(json.loads(json.dumps(report.to_json()))) == report
