"""Demand writes to the API server: immediate, renewed, withdrawn, retried."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from corral_core.base.json_fields import JsonObject, get_object
from corral_core.contracts.demand import DemandEntry, parse_demand
from corral_kube.errors import APIServerUnreachable, NotFound
from corral_server.gateway.directory import kubernetes_demand as module
from corral_server.gateway.directory.kubernetes_demand import DemandWriter
from tests.support.waiting import auntil

KEY = "lab/tiny"


class Server:
    """Fake API server that records writes; fails while ``failure`` is set."""

    def __init__(self) -> None:
        self.writes: list[tuple[DemandEntry, ...]] = []
        self.paths: set[tuple[str, str]] = set()
        self.failure: Callable[[], Exception] | None = None
        self.tries = 0

    async def apply(self, path: str, body: JsonObject, *, manager: str) -> JsonObject:
        self.tries += 1
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure()
        self.paths.add((path, manager))
        self.writes.append(parse_demand(get_object(body, "status")))
        return body

    def waiting(self) -> list[int]:
        """Return the written numbers of pending requests; 0 for a withdrawal."""
        return [entries[0].waiting if entries else 0 for entries in self.writes]


async def test_the_first_pending_request_is_written_immediately_with_the_field_manager_of_the_gateway() -> None:
    server = Server()
    demands = DemandWriter(server, "g1")
    demands.set_level(KEY, 1, 1_800_000_000.5)
    await auntil(lambda: server.writes)
    (entry,) = server.writes[0]
    assert (entry.gateway, entry.waiting, entry.oldest) == ("g1", 1, 1_800_000_000.5)
    path = "/apis/corral.dev/v1alpha1/namespaces/lab/models/tiny/status"
    assert server.paths == {(path, "corral-gateway-g1")}
    await demands.close()


async def test_the_entry_is_withdrawn_after_the_last_pending_request() -> None:
    server = Server()
    demands = DemandWriter(server, "g1")
    demands.set_level(KEY, 1, 1.0)
    await auntil(lambda: server.writes)
    demands.set_level(KEY, 0, None)
    await auntil(lambda: server.waiting() == [1, 0])
    await demands.close()
    assert server.waiting() == [1, 0]


async def test_a_change_during_a_write_is_written_next() -> None:
    server = Server()
    demands = DemandWriter(server, "g1")
    demands.set_level(KEY, 1, 1.0)
    await asyncio.sleep(0)
    demands.set_level(KEY, 0, None)
    demands.set_level(KEY, 3, 1.0)
    await auntil(lambda: server.waiting()[-1:] == [3])
    await demands.close()
    assert server.waiting()[-1] == 0


async def test_an_entry_is_renewed_while_requests_are_pending(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RENEW_INTERVAL", 0.02)

    server = Server()
    demands = DemandWriter(server, "g1")
    demands.set_level(KEY, 1, 1.0)
    await auntil(lambda: len(server.writes) >= 3)
    assert server.writes[0][0].renewed < server.writes[2][0].renewed
    await demands.close()


async def test_the_context_that_requests_ask_for_is_part_of_the_entry() -> None:
    server = Server()
    demands = DemandWriter(server, "g1")
    demands.set_level(KEY, 1, 1.0)
    demands.set_context(KEY, 8192)
    await auntil(lambda: server.writes)
    demands.set_context(KEY, 0)
    await auntil(lambda: len(server.writes) == 2)
    assert [entries[0].context_length for entries in server.writes] == [8192, 0]
    await demands.close()


async def test_the_want_of_a_pull_is_an_entry_without_requests() -> None:
    server = Server()
    demands = DemandWriter(server, "g1")
    demands.set_pull(KEY, True)
    await auntil(lambda: [len(entries) for entries in server.writes] == [1])
    demands.set_level(KEY, 2, 1.0)
    await auntil(lambda: server.waiting() == [0, 2])
    demands.set_level(KEY, 0, None)
    await auntil(lambda: server.waiting() == [0, 2, 0])
    demands.set_pull(KEY, False)
    await auntil(lambda: [len(entries) for entries in server.writes] == [1, 1, 1, 0])
    await demands.close()


async def test_a_failed_write_is_retried() -> None:
    server = Server()
    server.failure = lambda: APIServerUnreachable("away")
    demands = DemandWriter(server, "g1")
    demands.set_level(KEY, 2, 1.0)
    await auntil(lambda: server.tries >= 2)
    server.failure = None
    await auntil(lambda: server.waiting() == [2])
    await demands.close()


async def test_demand_of_a_deleted_model_is_dropped_and_can_be_reported_again() -> None:
    server = Server()
    server.failure = lambda: NotFound("gone")
    demands = DemandWriter(server, "g1")
    demands.set_level(KEY, 1, 1.0)
    await auntil(lambda: server.tries == 1)
    await asyncio.sleep(0)
    server.failure = None
    demands.set_level(KEY, 0, None)
    demands.set_level(KEY, 1, 1.0)
    await auntil(lambda: server.waiting()[-1:] == [1])
    await demands.close()


async def test_close_withdraws_all_demand() -> None:
    server = Server()
    demands = DemandWriter(server, "g1")
    demands.set_level(KEY, 1, 1.0)
    demands.set_level("lab/other", 1, 1.0)
    await auntil(lambda: len(server.writes) == 2)
    await demands.close()
    assert server.waiting() == [1, 1, 0, 0]
