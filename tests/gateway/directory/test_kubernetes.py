"""KubeDirectory: names, endpoints and changes from watched objects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from corral_core.base.errors import InvalidName
from corral_core.base.json_fields import JsonObject
from corral_kube.calls import APICallMetrics
from corral_kube.client import ObjectList, Transform, identity
from corral_server.gateway.directory import kubernetes
from corral_server.gateway.directory.kubernetes import KubeDirectory, KubeSettings
from tests.gateway.kube_objects import endpoint, endpoint_slice, model
from tests.support.waiting import auntil


class Server:
    """Fake API server with two lists, and watches that deliver every change."""

    def __init__(self) -> None:
        self.watches: dict[str, asyncio.Queue[tuple[str, JsonObject]]] = {
            "models": asyncio.Queue(),
            "slices": asyncio.Queue(),
        }
        self.listed: dict[str, list[JsonObject]] = {"models": [], "slices": []}

    async def list(self, path: str, *, selector: str = "", fields: str = "", trim: Transform = identity) -> ObjectList:
        return ObjectList(self.listed[self._kind(path)], "1")

    async def current_version(self, path: str, *, fields: str = "") -> str:
        return "1"

    async def watch(
        self, path: str, version: str, *, selector: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[str, JsonObject]]:
        while True:
            yield await self.watches[self._kind(path)].get()

    async def apply(self, path: str, body: JsonObject, *, manager: str) -> JsonObject:
        return body

    def _kind(self, path: str) -> str:
        return "slices" if path.endswith("endpointslices") else "models"

    def send(self, event: str, item: JsonObject) -> None:
        self.watches["slices" if "endpoints" in item else "models"].put_nowait((event, item))


@asynccontextmanager
async def running_directory(*listed: JsonObject) -> AsyncIterator[tuple[Server, KubeDirectory]]:
    """Run a KubeDirectory over a server that lists these objects."""
    server = Server()
    for item in listed:
        server.listed["slices" if "endpoints" in item else "models"].append(item)
    directory = KubeDirectory(server, KubeSettings(), gateway_id="g1")
    task = asyncio.create_task(directory.run())
    try:
        await auntil(directory.synced)
        yield server, directory
    finally:
        await directory.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def hosts(directory: KubeDirectory, name: str = "tiny") -> list[str]:
    found = directory.find(name)
    return [endpoint.host for endpoint in found.entry.endpoints] if found else []


def keys(directory: KubeDirectory, *names: str) -> list[str | None]:
    found = [directory.find(name) for name in names]
    return [one.entry.key if one else None for one in found]


async def test_a_model_is_found_by_any_spelling_of_its_names() -> None:
    async with running_directory(model(spec={"names": ["Tiny:135m"]})) as (_, directory):
        found = [directory.find(name) for name in ("tiny:135m", "TINY:135M", "registry.ollama.ai/library/tiny:135m")]
        assert [one.entry.key if one else None for one in found] == ["lab/tiny"] * 3
        assert directory.find("tiny") is None
        with pytest.raises(InvalidName):
            directory.find("no spaces please")


async def test_subscribers_are_notified_of_ready_and_removed_runners() -> None:
    async with running_directory(model()) as (server, directory):
        changes: list[str] = []
        directory.subscribe(changes.append)
        server.send("ADDED", endpoint_slice(endpoint("10.0.0.1")))
        await auntil(lambda: hosts(directory) == ["10.0.0.1"])
        server.send("MODIFIED", endpoint_slice(endpoint("10.0.0.1", ready=False)))
        await auntil(lambda: hosts(directory) == [])
        server.send("DELETED", endpoint_slice(endpoint("10.0.0.1", ready=False)))
        server.send("DELETED", model())
        await auntil(lambda: directory.find("tiny") is None)
        assert set(changes) == {"lab/tiny"}
        assert len(changes) == 3


async def test_unchanged_endpoints_keep_their_identity() -> None:
    async with running_directory(model(), endpoint_slice(endpoint())) as (server, directory):
        before = directory.get("lab/tiny")
        server.send("MODIFIED", model(status={"phase": "Ready"}, spec={"system": "Be kind."}))
        await auntil(lambda: directory.get("lab/tiny") != before)
        after = directory.get("lab/tiny")
        assert before is not None
        assert after is not None
        assert after.endpoints is before.endpoints


async def test_a_change_of_demand_is_not_notified() -> None:
    async with running_directory(model()) as (server, directory):
        changes: list[str] = []
        directory.subscribe(changes.append)
        server.send("MODIFIED", model(status={"demand": [{"gateway": "g2", "waiting": 1}]}))
        server.send("ADDED", model("other"))
        await auntil(lambda: directory.find("other"))
        assert changes == ["lab/other"]


async def test_a_name_belongs_to_its_oldest_model_and_the_younger_keeps_its_others() -> None:
    younger = model("younger", created=9, spec={"names": ["shared", "own"]})
    async with running_directory(younger, model("older", created=1, spec={"names": ["shared"]})) as (server, directory):
        assert keys(directory, "shared", "own", "lab/shared") == ["lab/older", "lab/younger", "lab/older"]
        assert [entry.names for entry in directory.entries()] == [("own:latest",), ("shared:latest",)]
        server.send("DELETED", model("older", created=1, spec={"names": ["shared"]}))
        await auntil(lambda: directory.get("lab/older") is None)
        assert keys(directory, "shared", "lab/older") == ["lab/younger", None]
        assert [entry.names for entry in directory.entries()] == [("shared:latest", "own:latest")]


async def test_a_model_without_a_name_of_its_own_is_served_by_its_namespace_and_name() -> None:
    younger = model("younger", created=9, spec={"names": ["shared"]})
    async with running_directory(younger, model("older", created=1, spec={"names": ["shared"]})) as (_, directory):
        assert keys(directory, "lab/younger", "Lab/Younger:latest") == ["lab/younger"] * 2
        assert [entry.names for entry in directory.entries()] == [("lab/younger:latest",), ("shared:latest",)]


async def test_a_renamed_model_is_not_found_by_its_old_name() -> None:
    async with running_directory(model(spec={"names": ["old"]})) as (server, directory):
        server.send("MODIFIED", model(spec={"names": ["new"]}))
        await auntil(lambda: directory.find("new"))
        assert directory.find("old") is None


async def test_a_permanent_watch_failure_ends_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Server):
        async def list(
            self, path: str, *, selector: str = "", fields: str = "", trim: Transform = identity
        ) -> ObjectList:
            raise RuntimeError("an internal error")

        async def keep_open(self) -> None:
            await asyncio.Event().wait()

        async def close(self) -> None:
            self.closed = True

    server = Broken()

    async def connected(kubeconfig: str | None, *, manager: str, calls: APICallMetrics) -> Broken:
        return server

    monkeypatch.setattr(kubernetes, "connect", connected)

    with pytest.raises(ExceptionGroup) as failed:
        async with (
            asyncio.timeout(10),
            kubernetes.open_directory(KubeSettings(), gateway_id="g1", calls=APICallMetrics()),
        ):
            await asyncio.Event().wait()
    assert failed.group_contains(RuntimeError, match="an internal error")
    assert server.closed


async def test_the_newest_model_is_listed_first() -> None:
    async with running_directory(model("a", created=1), model("c", created=3), model("b", created=2)) as (
        _,
        directory,
    ):
        assert [entry.key for entry in directory.entries()] == ["lab/c", "lab/b", "lab/a"]
