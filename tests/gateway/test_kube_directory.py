"""The Directory over the API server: names, endpoints and changes, from watched objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from corral_core.errors import InvalidName
from corral_core.jsonfields import Json
from corral_kube.calls import Calls
from corral_kube.client import Listing, Trim, whole
from corral_server.gateway import kube_directory
from corral_server.gateway.kube_directory import KubeDirectory, KubeSettings
from tests.gateway.kube_objects import endpoint, endpoint_slice, model
from tests.support.waiting import auntil


class Server:
    """An API server of two lists, with watches that tell of every change."""

    def __init__(self) -> None:
        self.watches: dict[str, asyncio.Queue[tuple[str, Json]]] = {
            "models": asyncio.Queue(),
            "slices": asyncio.Queue(),
        }
        self.listed: dict[str, list[Json]] = {"models": [], "slices": []}

    async def list(self, path: str, *, selector: str = "", fields: str = "", trim: Trim = whole) -> Listing:
        return Listing(self.listed[self._kind(path)], "1")

    async def watch(
        self, path: str, version: str, *, selector: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[str, Json]]:
        while True:
            yield await self.watches[self._kind(path)].get()

    async def apply(self, path: str, body: Json, *, manager: str) -> Json:
        return body

    def _kind(self, path: str) -> str:
        return "slices" if path.endswith("endpointslices") else "models"

    def say(self, event: str, item: Json) -> None:
        self.watches["slices" if "endpoints" in item else "models"].put_nowait((event, item))


@asynccontextmanager
async def directory(server: Server) -> AsyncIterator[KubeDirectory]:
    kept = KubeDirectory(server, KubeSettings(), gateway_id="g1")
    task = asyncio.create_task(kept.run())
    try:
        await auntil(kept.settled)
        yield kept
    finally:
        await kept.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def hosts(kept: KubeDirectory, name: str = "tiny") -> list[str]:
    entry = kept.find(name)
    return [found.host for found in entry.endpoints] if entry else []


def scenario(run: Callable[[Server, KubeDirectory], object], *listed: Json) -> None:
    async def body() -> None:
        server = Server()
        for item in listed:
            server.listed["slices" if "endpoints" in item else "models"].append(item)
        async with directory(server) as kept:
            result = run(server, kept)
            if asyncio.iscoroutine(result):
                await result

    asyncio.run(body())


def test_a_model_is_found_by_any_spelling_of_its_names() -> None:
    def run(server: Server, kept: KubeDirectory) -> None:
        found = [kept.find(name) for name in ("tiny:135m", "TINY:135M", "registry.ollama.ai/library/tiny:135m")]
        assert [entry.key if entry else None for entry in found] == ["lab/tiny"] * 3
        assert kept.find("tiny") is None
        with pytest.raises(InvalidName):
            kept.find("no spaces please")

    scenario(run, model(spec={"names": ["Tiny:135m"]}))


def test_a_runner_that_gets_ready_and_goes_is_told_to_subscribers() -> None:
    async def run(server: Server, kept: KubeDirectory) -> None:
        told: list[str] = []
        kept.subscribe(told.append)
        server.say("ADDED", endpoint_slice(endpoint("10.0.0.1")))
        await auntil(lambda: hosts(kept) == ["10.0.0.1"])
        server.say("MODIFIED", endpoint_slice(endpoint("10.0.0.1", ready=False)))
        await auntil(lambda: hosts(kept) == [])
        server.say("DELETED", endpoint_slice(endpoint("10.0.0.1", ready=False)))
        server.say("DELETED", model())
        await auntil(lambda: kept.find("tiny") is None)
        assert set(told) == {"lab/tiny"}
        assert len(told) == 3

    scenario(run, model())


def test_endpoints_that_did_not_change_stay_the_very_same_object() -> None:
    async def run(server: Server, kept: KubeDirectory) -> None:
        before = kept.get("lab/tiny")
        server.say("MODIFIED", model(status={"phase": "Ready"}, spec={"system": "Be kind."}))
        await auntil(lambda: kept.get("lab/tiny") != before)
        after = kept.get("lab/tiny")
        assert before is not None
        assert after is not None
        assert after.endpoints is before.endpoints

    scenario(run, model(), endpoint_slice(endpoint()))


def test_demand_in_the_status_is_no_change_for_the_gateway() -> None:
    async def run(server: Server, kept: KubeDirectory) -> None:
        told: list[str] = []
        kept.subscribe(told.append)
        server.say("MODIFIED", model(status={"demand": [{"gateway": "g2", "waiting": 1}]}))
        server.say("ADDED", model("other"))
        await auntil(lambda: kept.find("other"))
        assert told == ["lab/other"]

    scenario(run, model())


def test_of_two_models_with_one_name_the_older_is_served_and_then_the_younger() -> None:
    async def run(server: Server, kept: KubeDirectory) -> None:
        entry = kept.find("shared")
        assert entry is not None
        assert entry.key == "lab/older"
        assert [found.key for found in kept.entries()] == ["lab/older"]
        server.say("DELETED", model("older", created=1, spec={"names": ["shared"]}))
        await auntil(lambda: kept.get("lab/younger"))
        found = kept.find("shared")
        assert found is not None
        assert found.key == "lab/younger"

    younger = model("younger", created=9, spec={"names": ["shared"]})
    scenario(run, younger, model("older", created=1, spec={"names": ["shared"]}))


def test_a_renamed_model_is_not_found_by_its_old_name() -> None:
    async def run(server: Server, kept: KubeDirectory) -> None:
        server.say("MODIFIED", model(spec={"names": ["new"]}))
        await auntil(lambda: kept.find("new"))
        assert kept.find("old") is None

    scenario(run, model(spec={"names": ["old"]}))


def test_a_watch_that_fails_for_good_ends_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Server):
        async def list(self, path: str, *, selector: str = "", fields: str = "", trim: Trim = whole) -> Listing:
            raise RuntimeError("a fault of our own")

        async def keep_open(self) -> None:
            await asyncio.Event().wait()

        async def close(self) -> None:
            self.closed = True

    server = Broken()

    async def connected(kubeconfig: str | None, *, manager: str, calls: Calls) -> Broken:
        return server

    monkeypatch.setattr(kube_directory, "connect", connected)

    async def body() -> None:
        async with kube_directory.open_directory(KubeSettings(), gateway_id="g1", calls=Calls()):
            await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as failed:
        asyncio.run(asyncio.wait_for(body(), 10))
    assert failed.group_contains(RuntimeError, match="a fault of our own")
    assert server.closed


def test_the_newest_model_is_listed_first() -> None:
    def run(server: Server, kept: KubeDirectory) -> None:
        assert [entry.key for entry in kept.entries()] == ["lab/c", "lab/b", "lab/a"]

    scenario(run, model("a", created=1), model("c", created=3), model("b", created=2))
