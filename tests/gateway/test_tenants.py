"""Names of several namespaces at the gateway: what a caller reaches by them, with and without an API key."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from corral_server.gateway.directory.directory import ModelEntry
from tests.gateway.test_keys import ALICE, BOB, bearer, key_file
from tests.support.fake_upstream import FakeUpstream, fake_upstream
from tests.support.gateway import MemoryDirectory, RunningGateway, entry, running_gateway

PATHS = ("/api/chat", "/api/show", "/v1/chat/completions", "/v1/messages")


def model(key: str, *names: str, port: int = 0, created: float = 1.0) -> ModelEntry:
    namespace, _, name = key.partition("/")
    value = entry(name, *((port,) if port else ()), names=tuple(f"{each}:latest" for each in names))
    return replace(value, model=replace(value.model, namespace=namespace, created=created))


async def reached(
    gateway: RunningGateway, runners: dict[str, FakeUpstream], name: str, key: str | None = None
) -> str | int:
    """Return the namespace whose runner got the request, or the status of the error."""
    before = {namespace: len(runner.calls) for namespace, runner in runners.items()}
    headers = bearer(key) if key else {}
    answer = await gateway.http.post("/api/chat", json={"model": name}, headers=headers)
    if answer.status_code != 200:
        return answer.status_code
    [namespace] = [each for each, runner in runners.items() if len(runner.calls) > before[each]]
    return namespace


@pytest.mark.parametrize("shared", [(), ("common",)])
async def test_no_namespace_takes_the_traffic_of_another(shared: tuple[str, ...]) -> None:
    """An older Model of another team claims all names; ``namespace/name`` still leads to the namespace's own."""
    async with fake_upstream() as good, fake_upstream() as evil:
        directory = MemoryDirectory.of(
            model("team-a/llama", "llama", port=good.port, created=9),
            model("evil/one", "llama", "team-a/llama", port=evil.port, created=1),
        )
        directory.shared = shared
        async with running_gateway(directory) as gateway:
            runners = {"team-a": good, "evil": evil}
            assert await reached(gateway, runners, "team-a/llama") == "team-a"
            assert await reached(gateway, runners, "evil/llama") == "evil"
            assert await reached(gateway, runners, "llama") == (404 if shared else "evil")
            assert good.calls[0].headers["corral-model-name"] == "llama:latest"


async def test_a_key_says_what_its_plain_names_mean(tmp_path: Path) -> None:
    keys = key_file(tmp_path, alice={"namespaces": ["team-a"]}, bob={"namespaces": ["team-b", "*"]})
    async with fake_upstream() as a, fake_upstream() as b, fake_upstream() as common:
        directory = MemoryDirectory.of(
            model("team-a/m", "llama", port=a.port, created=3),
            model("team-b/m", "llama", port=b.port, created=2),
            model("common/m", "llama", "base", port=common.port, created=1),
        )
        directory.shared = ("common",)
        runners = {"team-a": a, "team-b": b, "common": common}
        async with running_gateway(directory, keys_file=keys) as gateway:
            for key, name, expected in (
                (ALICE, "llama", "team-a"),
                (ALICE, "base", "common"),
                (ALICE, "common/llama", "common"),
                (ALICE, "team-b/llama", 403),
                (ALICE, "team-c/llama", 403),
                (BOB, "llama", "team-b"),
                (BOB, "team-a/llama", "team-a"),
                (BOB, "base", "common"),
                (BOB, "team-c/llama", 404),
            ):
                assert await reached(gateway, runners, name, key) == expected, (key, name)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["team-b/secret", "team-b/none", "team-c/none"])
async def test_a_namespace_that_a_key_does_not_see_gets_403_whether_it_exists_or_not(
    tmp_path: Path, path: str, name: str
) -> None:
    keys = key_file(tmp_path, alice={"namespaces": ["team-a"]})
    directory = MemoryDirectory.of(model("team-a/m", "mine"), model("team-b/m", "secret"))
    async with running_gateway(directory, keys_file=keys) as gateway:
        answer = await gateway.http.post(path, json={"model": name}, headers=bearer(ALICE))
        assert answer.status_code == 403
        assert f"does not allow model '{name}'" in answer.text
        assert (await gateway.http.get(f"/v1/models/{name}", headers=bearer(ALICE))).status_code == 404
        plain = await gateway.http.post(path, json={"model": "secret"}, headers=bearer(ALICE))
        assert plain.status_code == 404, "a plain name of another namespace does not exist for this key"


async def test_lists_have_the_names_by_which_the_caller_reaches_each_model(tmp_path: Path) -> None:
    keys = key_file(tmp_path, alice={"namespaces": ["team-a"]}, bob={"models": ["*base*"]})
    directory = MemoryDirectory.of(
        model("team-a/m", "llama"), model("team-b/m", "llama"), model("common/m", "llama", "base")
    )
    directory.shared = ("common",)
    async with running_gateway(directory, keys_file=keys) as gateway:
        assert await listed(gateway, ALICE) == ["base:latest", "common/llama:latest", "llama:latest"]
        assert await listed(gateway, BOB) == ["base:latest"]
        for name in await listed(gateway, ALICE):
            shown = await gateway.http.post("/api/show", json={"model": name}, headers=bearer(ALICE))
            assert shown.status_code == 200


async def listed(gateway: RunningGateway, key: str) -> list[str]:
    answers: list[httpx.Response] = [
        await gateway.http.get(path, headers=bearer(key)) for path in ("/api/tags", "/v1/models")
    ]
    names = sorted(tag["name"] for tag in answers[0].json()["models"])
    assert sorted(item["id"] for item in answers[1].json()["data"]) == names
    return names


@pytest.mark.parametrize(
    ("patterns", "name", "status"),
    [
        (["llama"], "llama", 200),
        (["llama"], "team-a/llama", 200),
        (["team-a/*"], "llama", 200),
        (["team-a/*"], "team-a/llama", 200),
        (["llama"], "team-b/llama", 403),
        (["team-b/*"], "llama", 403),
        (["llama"], "team-a/m", 403),
        (["team-a/m"], "llama", 403),
        (["llama"], "other", 403),
        (["other"], "team-a/secret", 403),
    ],
)
async def test_a_pattern_allows_a_model_by_each_name_that_means_it(
    tmp_path: Path, patterns: list[str], name: str, status: int
) -> None:
    """Names of another model, and other names of the same weights, stay forbidden."""
    keys = key_file(tmp_path, alice={"namespaces": ["team-a", "team-b"], "models": patterns})
    directory = MemoryDirectory.of(model("team-a/m", "llama", "secret"), model("team-b/m", "llama"))
    async with running_gateway(directory, keys_file=keys) as gateway:
        answer = await gateway.http.post("/api/show", json={"model": name}, headers=bearer(ALICE))
        assert answer.status_code == status
