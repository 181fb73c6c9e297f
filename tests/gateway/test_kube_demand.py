"""Demand as it is written to the API server: at once, renewed, withdrawn, whatever fails in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from corral_core.demand import DemandEntry, entries_of
from corral_core.jsonfields import Json, mapping
from corral_kube.errors import NotFound, Unreachable
from corral_server.gateway.kube import demand as module
from corral_server.gateway.kube.demand import Demands
from tests.support.waiting import auntil

KEY = "lab/tiny"


class Server:
    """Keeps what was applied last; fails while ``failure`` is set."""

    def __init__(self) -> None:
        self.writes: list[tuple[DemandEntry, ...]] = []
        self.paths: set[tuple[str, str]] = set()
        self.failure: Callable[[], Exception] | None = None
        self.tries = 0

    async def apply(self, path: str, body: Json, *, manager: str) -> Json:
        self.tries += 1
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure()
        self.paths.add((path, manager))
        self.writes.append(entries_of(mapping(body, "status")))
        return body

    def waiting(self) -> list[int]:
        """What was written, as numbers of waiting requests; 0 for a withdrawal."""
        return [entries[0].waiting if entries else 0 for entries in self.writes]


def test_the_first_waiting_request_is_written_at_once_under_the_gateways_own_manager() -> None:
    async def scenario() -> None:
        server = Server()
        demands = Demands(server, "g1")
        demands.state(KEY, 1, 1_800_000_000.5)
        await auntil(lambda: server.writes)
        (entry,) = server.writes[0]
        assert (entry.gateway, entry.waiting, entry.oldest) == ("g1", 1, 1_800_000_000.5)
        path = "/apis/corral.dev/v1alpha1/namespaces/lab/models/tiny/status"
        assert server.paths == {(path, "corral-gateway-g1")}
        await demands.close()

    asyncio.run(scenario())


def test_the_last_one_that_leaves_withdraws_the_entry() -> None:
    async def scenario() -> None:
        server = Server()
        demands = Demands(server, "g1")
        demands.state(KEY, 1, 1.0)
        await auntil(lambda: server.writes)
        demands.state(KEY, 0, None)
        await auntil(lambda: server.waiting() == [1, 0])
        await demands.close()
        assert server.waiting() == [1, 0]

    asyncio.run(scenario())


def test_a_level_that_changes_during_a_write_is_written_after_it() -> None:
    async def scenario() -> None:
        server = Server()
        demands = Demands(server, "g1")
        demands.state(KEY, 1, 1.0)
        await asyncio.sleep(0)
        demands.state(KEY, 0, None)
        demands.state(KEY, 3, 1.0)
        await auntil(lambda: server.waiting()[-1:] == [3])
        await demands.close()
        assert server.waiting()[-1] == 0

    asyncio.run(scenario())


def test_an_entry_is_renewed_while_requests_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_EVERY", 0.02)

    async def scenario() -> None:
        server = Server()
        demands = Demands(server, "g1")
        demands.state(KEY, 1, 1.0)
        await auntil(lambda: len(server.writes) >= 3)
        assert server.writes[0][0].renewed < server.writes[2][0].renewed
        await demands.close()

    asyncio.run(scenario())


def test_a_server_that_is_away_is_tried_again_until_it_knows() -> None:
    async def scenario() -> None:
        server = Server()
        server.failure = lambda: Unreachable("away")
        demands = Demands(server, "g1")
        demands.state(KEY, 2, 1.0)
        await auntil(lambda: server.tries >= 2)
        server.failure = None
        await auntil(lambda: server.waiting() == [2])
        await demands.close()

    asyncio.run(scenario())


def test_demand_for_a_model_that_is_gone_is_given_up_and_can_be_stated_anew() -> None:
    async def scenario() -> None:
        server = Server()
        server.failure = lambda: NotFound("gone")
        demands = Demands(server, "g1")
        demands.state(KEY, 1, 1.0)
        await auntil(lambda: server.tries == 1)
        await asyncio.sleep(0)
        server.failure = None
        demands.state(KEY, 0, None)
        demands.state(KEY, 1, 1.0)
        await auntil(lambda: server.waiting()[-1:] == [1])
        await demands.close()

    asyncio.run(scenario())


def test_closing_withdraws_everything() -> None:
    async def scenario() -> None:
        server = Server()
        demands = Demands(server, "g1")
        demands.state(KEY, 1, 1.0)
        demands.state("lab/other", 1, 1.0)
        await auntil(lambda: len(server.writes) == 2)
        await demands.close()
        assert server.waiting() == [1, 1, 0, 0]

    asyncio.run(scenario())
