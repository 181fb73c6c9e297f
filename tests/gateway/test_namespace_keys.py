"""API keys in Secrets of namespaces: what they see, what an invalid Secret changes, and what it costs."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_core.base.errors import InvalidSetting
from corral_core.base.json_fields import JsonObject
from corral_core.contracts.api_keys import MAX_SECRET_BYTES, generate_key, key_digest, key_namespace
from corral_kube.client import ObjectList, Transform, identity
from corral_server.gateway.auth.generate_key import main
from corral_server.gateway.auth.key_file import InvalidKeyFile
from corral_server.gateway.auth.key_store import KeyStore
from corral_server.gateway.auth.namespace_keys import NamespaceKeys, keys_of
from corral_server.gateway.directory.kubernetes import KubeSettings
from corral_server.wire.errors import ApiError
from tests.gateway.test_keys import ALICE, bearer, key_file
from tests.gateway.test_tenants import model, reached
from tests.support.fake_upstream import fake_upstream
from tests.support.gateway import MemoryDirectory, running_gateway
from tests.support.waiting import auntil

NAME = "corral-api-keys"
TEAM_A, TEAM_B = "corral_team-a.one", "corral_team-b.two"


def entry_of(key: str, name: str = "ci", **fields: object) -> dict[str, object]:
    return {"name": name, "sha256": key_digest(key.encode()).hex(), **fields}


def secret(namespace: str, *entries: object, text: str | None = None) -> JsonObject:
    content = yaml.safe_dump({"keys": list(entries)}) if text is None else text
    data = {"keys.yaml": base64.b64encode(content.encode()).decode()}
    return {"metadata": {"namespace": namespace, "name": NAME, "resourceVersion": "1"}, "data": data}


class SecretServer:
    """Fake API server with Secrets of one name."""

    def __init__(self, *listed: JsonObject) -> None:
        self.listed = [*listed]
        self.events: asyncio.Queue[tuple[str, JsonObject]] = asyncio.Queue()
        self.may_list = asyncio.Event()
        self.asked: set[tuple[str, str]] = set()
        self.versions_read = 0

    async def list(self, path: str, *, selector: str = "", fields: str = "", trim: Transform = identity) -> ObjectList:
        await self.may_list.wait()
        self.asked.add((path, fields))
        return ObjectList(self.listed, "1")

    async def current_version(self, path: str, *, fields: str = "") -> str:
        self.asked.add((path, fields))
        self.versions_read += 1
        return "1"

    async def watch(
        self, path: str, version: str, *, selector: str = "", fields: str = ""
    ) -> AsyncIterator[tuple[str, JsonObject]]:
        self.asked.add((path, fields))
        while self.versions_read:  # the first watch ends at once
            yield await self.events.get()

    def send(self, event: str, item: JsonObject) -> None:
        self.events.put_nowait((event, item))


@asynccontextmanager
async def watched(server: SecretServer, *, keys_file: str = "") -> AsyncIterator[KeyStore]:
    store = KeyStore(keys_file)
    store.listed = False
    task = asyncio.create_task(NamespaceKeys(server, store, NAME).run())
    try:
        if server.may_list.is_set():
            await auntil(lambda: store.listed)
        yield store
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def listing(*secrets: JsonObject) -> SecretServer:
    server = SecretServer(*secrets)
    server.may_list.set()
    return server


async def test_the_keys_of_a_namespace_see_their_own_and_the_shared_namespaces(tmp_path: Path) -> None:
    server = listing(secret("team-a", entry_of(TEAM_A)), secret("team-b", entry_of(TEAM_B)))
    async with (
        fake_upstream() as a,
        fake_upstream() as b,
        fake_upstream() as common,
        watched(server, keys_file=key_file(tmp_path)) as store,
    ):
        directory = MemoryDirectory.of(
            model("team-a/m", "llama", port=a.port),
            model("team-b/m", "llama", port=b.port),
            model("common/m", "base", port=common.port),
        )
        directory.shared = ("common",)
        runners = {"team-a": a, "team-b": b, "common": common}
        async with running_gateway(directory, keys=store) as gateway:
            for key, name, expected in (
                (TEAM_A, "llama", "team-a"),
                (TEAM_B, "llama", "team-b"),
                (TEAM_A, "base", "common"),
                (TEAM_A, "team-b/llama", 403),
                (ALICE, "team-b/llama", "team-b"),
                ("corral_team-a.wrong", "llama", 401),
                ("corral_team-c.one", "llama", 401),
            ):
                assert await reached(gateway, runners, name, key) == expected, (key, name)
        await auntil(lambda: server.versions_read)
    assert server.asked == {("/api/v1/secrets", f"metadata.name={NAME}")}, "more than this the account may not read"


@pytest.mark.parametrize("namespaces", [["team-b"], ["*"], ["team-a", "team-b"]])
async def test_a_secret_cannot_grant_another_namespace(namespaces: list[str]) -> None:
    server = listing(secret("team-a", entry_of(TEAM_A, namespaces=namespaces)))
    async with watched(server) as store:
        assert store.all() == []
        assert store.invalid == {"team-a"}
    with pytest.raises(InvalidKeyFile, match=r"namespaces must be absent or \[team-a\]"):
        keys_of("team-a", server.listed[0])
    (key,) = keys_of("team-a", secret("team-a", entry_of(TEAM_A, namespaces=["team-a"])))
    assert (key.name, key.namespaces) == ("team-a/ci", ("team-a",))


async def test_the_hash_of_another_namespaces_key_gets_none_of_its_requests() -> None:
    """Who can read a Secret can list its hashes in an own Secret; the key is looked up only where it belongs."""
    server = listing(secret("evil", entry_of(TEAM_A)), secret("team-a", entry_of(TEAM_A)))
    async with watched(server) as store:
        found = store.find(TEAM_A.encode())
        assert found is not None
        assert found.name == "team-a/ci"
        server.send("DELETED", server.listed[1])
        await auntil(lambda: len(store.all()) == 1)
        assert store.find(TEAM_A.encode()) is None


async def test_an_invalid_secret_changes_nothing_and_a_deleted_one_ends_its_keys() -> None:
    server = listing(secret("team-a", entry_of(TEAM_A)))
    async with watched(server) as store:
        server.send("MODIFIED", secret("team-a", {"name": "broken"}))
        await auntil(lambda: store.invalid == {"team-a"})
        assert store.find(TEAM_A.encode()) is not None
        server.send("MODIFIED", secret("team-a", entry_of(TEAM_A), entry_of("corral_team-a.x", "other")))
        await auntil(lambda: len(store.all()) == 2)
        assert store.invalid == set()
        server.send("DELETED", server.listed[0])
        await auntil(lambda: store.all() == [])


async def test_until_the_secrets_are_listed_a_key_of_a_namespace_gets_503(tmp_path: Path) -> None:
    server = SecretServer(secret("team-a", entry_of(TEAM_A)))
    directory = MemoryDirectory.of(model("team-a/m", "llama"))
    async with (
        watched(server, keys_file=key_file(tmp_path)) as store,
        running_gateway(directory, keys=store) as gateway,
    ):
        for key, status in ((TEAM_A, 503), (ALICE, 200), ("corral_wrong", 401)):
            answer = await gateway.http.get("/api/tags", headers=bearer(key))
            assert answer.status_code == status
            assert ("retry-after" in answer.headers) == (status == 503)
        server.may_list.set()
        await auntil(lambda: store.listed)
        assert (await gateway.http.get("/api/tags", headers=bearer(TEAM_A))).status_code == 200


HOSTILE = {
    "aliases": "a: &a [x,x]\nb: &b [*a,*a]\nkeys: [*b,*b]",
    "merges": "a: &a {x: 1}\nb: &b {<<: [*a,*a,*a]}\nkeys: [{<<: [*b,*b]}]",
    "nested": "keys: " + "[" * 2000 + "]" * 2000,
    "digits": "keys: [{name: a, requestsPerMinute: " + "9" * 5000 + "}]",
    "time": "keys: [{name: a, expires: 2027-99-99T00:00:00Z}]",
    "early": f'keys: [{{name: a, sha256: "{"ab" * 32}", expires: "0001-01-01T00:00:00+23:59"}}]',
    "patterns": f'keys: [{{name: a, sha256: "{"ab" * 32}", models: [{"a*, " * 100}]}}]',
    "tag": "keys: !!python/object/apply:os.system ['true']",
    "size": "#" * (MAX_SECRET_BYTES + 4),
    "empty": "",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_secret_is_refused_and_others_are_read(name: str) -> None:
    server = listing(secret("evil", text=HOSTILE[name]), secret("team-a", entry_of(TEAM_A)))
    async with watched(server) as store:
        assert store.find(TEAM_A.encode()) is not None
        assert store.invalid == {"evil"}


async def test_an_item_that_is_not_text_is_refused() -> None:
    binary: JsonObject = {"metadata": {"namespace": "evil", "name": NAME}, "data": {"x": "//79", "y": 7}}
    async with watched(listing(binary)) as store:
        assert store.invalid == {"evil"}


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["a", "ab" * 32]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
ENTRIES = st.dictionaries(
    st.sampled_from(["name", "sha256", "models", "namespaces", "expires", "concurrent", "tokensPerDay", "other"]),
    VALUES,
)


@settings(max_examples=500, deadline=None)
@given(st.lists(ENTRIES | VALUES, max_size=3) | VALUES)
def test_any_content_is_read_or_refused(keys: object) -> None:
    """The parser raises no other exception, and each key that it returns sees only its namespace."""
    try:
        found = keys_of("team-a", secret("team-a", text=json.dumps({"keys": keys})))
    except InvalidKeyFile:
        return
    assert all(key.namespaces == ("team-a",) and key.name.startswith("team-a/") for key in found)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        keys_of("team-a", secret("team-a", text=text))
    except InvalidKeyFile:
        return


def test_a_generated_key_names_its_namespace(capsys: pytest.CaptureFixture[str]) -> None:
    key, digest = generate_key("team-a")
    assert key_namespace(key.encode()) == "team-a"
    assert key_digest(key.encode()).hex() == digest
    assert key_namespace(generate_key()[0].encode()) == ""
    assert main(["ci", "team-a"]) == 0
    assert "corral_team-a." in capsys.readouterr().err


def test_the_name_of_the_secrets_is_checked() -> None:
    assert KubeSettings.from_environment({"CORRAL_API_KEYS_SECRET": NAME}).keys_secret == NAME
    with pytest.raises(InvalidSetting, match="CORRAL_API_KEYS_SECRET='a,b'"):
        KubeSettings.from_environment({"CORRAL_API_KEYS_SECRET": "a,b"})


async def test_the_first_503_is_an_api_error() -> None:
    store = KeyStore("")
    store.listed = False
    with pytest.raises(ApiError) as caught:
        store.find(b"corral_team-a.x")
    assert caught.value.retry_after == 1
