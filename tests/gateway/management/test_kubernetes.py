"""Models on the API server: what is sent to it, and what its refusals become."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from corral_core.base.json_fields import JsonObject
from corral_kube.errors import APIServerUnreachable, KubeError, error_from_status
from corral_server.gateway.management.kubernetes import ATTEMPTS, KubeModelStore
from corral_server.gateway.management.store import ModelExists, ModelMissing, ModelRefused

PATH = "/apis/corral.dev/v1alpha1/namespaces/team-a/models"
SPEC: JsonObject = {"source": "ollama://smollm2"}


class FakeClient:
    """``objects`` by path. ``before`` runs before each write, ``calls`` are the writes."""

    def __init__(self, *names: str) -> None:
        self.objects: dict[str, JsonObject] = {f"{PATH}/{name}": model(name, version=1) for name in names}
        self.before: Callable[[], None] = lambda: None
        self.calls: list[tuple[str, str]] = []

    async def get(self, path: str) -> JsonObject:
        if path not in self.objects:
            raise failure(404, 'models.corral.dev "x" not found')
        return self.objects[path]

    async def create(self, path: str, body: JsonObject) -> JsonObject:
        self._written("POST", path)
        return self.objects.setdefault(f"{path}/x", body)

    async def replace(self, path: str, body: JsonObject) -> JsonObject:
        self._written("PUT", path)
        current = await self.get(path)
        if version_of(body) != version_of(current):
            raise failure(409, "the object has been modified")
        self.objects[path] = body
        return body

    async def delete(self, path: str, *, uid: str, grace: int | None = None) -> None:
        self._written("DELETE", path)
        assert uid == "uid-1"
        self.objects.pop(path, None)

    def _written(self, method: str, path: str) -> None:
        self.calls.append((method, path))
        self.before()


def model(name: str, *, version: int = 0, **labels: str) -> JsonObject:
    metadata = {"namespace": "team-a", "name": name, "labels": labels}
    served = {"uid": "uid-1", "resourceVersion": str(version), "annotations": {"kept": "yes"}}
    return {"metadata": {**metadata, **(served if version else {})}, "spec": SPEC, "status": {"phase": "Idle"}}


def version_of(item: JsonObject) -> object:
    metadata = item["metadata"]
    assert isinstance(metadata, dict)
    return metadata["resourceVersion"]


def failure(status: int, message: str) -> KubeError:
    return error_from_status(status, f"POST: {status} {message}", server_message=message)


def failing(error: KubeError) -> KubeModelStore:
    client = FakeClient("x")

    def fail() -> None:
        raise error

    client.before = fail
    return KubeModelStore(client)


async def test_a_model_is_created_by_post() -> None:
    client = FakeClient()
    await KubeModelStore(client).create(model("x"))
    assert client.calls == [("POST", PATH)]


async def test_a_second_creation_is_model_exists() -> None:
    with pytest.raises(ModelExists):
        await failing(failure(409, 'models.corral.dev "x" already exists')).create(model("x"))


@pytest.mark.parametrize(
    ("status", "message", "shown"),
    [
        (403, 'models.corral.dev "x" is forbidden: exceeded quota: models, used: 1, limited: 1', 403),
        (403, "ValidatingAdmissionPolicy 'limits' denied request: spec.pod.image cannot be set", 403),
        (422, 'Model.corral.dev "x" is invalid: spec.source: a source must have a scheme', 422),
        (400, "strict decoding error: unknown field spec.x", 400),
        (500, "failed calling webhook policy.example: no endpoints", 422),
        (503, "etcd is not available", 503),
    ],
)
async def test_a_refusal_has_the_message_of_the_api_server(status: int, message: str, shown: int) -> None:
    with pytest.raises(ModelRefused) as refused:
        await failing(failure(status, message)).create(model("x"))
    assert refused.value.status == shown
    assert message in str(refused.value)


async def test_a_gateway_without_permission_says_which_values_grant_it() -> None:
    message = 'models.corral.dev is forbidden: User "gateway" cannot create resource "models" in namespace "team-a"'
    with pytest.raises(ModelRefused, match=r"may not manage models in namespace team-a: .*models\.create") as refused:
        await failing(failure(403, message)).create(model("x"))
    assert refused.value.status == 403


async def test_a_missing_namespace_says_who_creates_it() -> None:
    with pytest.raises(
        ModelRefused, match=r'namespaces "team-a" not found: ask an administrator to create the namespace'
    ):
        await failing(failure(404, 'namespaces "team-a" not found')).create(model("x"))


async def test_an_unreachable_api_server_is_a_reason_to_try_again() -> None:
    with pytest.raises(ModelRefused, match="please try again: no answer") as refused:
        await failing(APIServerUnreachable("no answer")).delete("team-a/x")
    assert refused.value.status == 503


async def test_an_update_replaces_labels_and_spec_and_keeps_the_rest() -> None:
    client = FakeClient("x")
    await KubeModelStore(client).update({**model("x", team="a"), "spec": {"source": "hf://org/repo"}})
    found = client.objects[f"{PATH}/x"]
    assert found["spec"] == {"source": "hf://org/repo"}
    assert found["metadata"] == model("x", version=1, team="a")["metadata"]


async def test_an_update_is_repeated_when_the_status_was_written_meanwhile() -> None:
    client = FakeClient("x")

    def write_status() -> None:
        if len(client.calls) == 1:
            client.objects[f"{PATH}/x"] = model("x", version=2)

    client.before = write_status
    await KubeModelStore(client).update({**model("x"), "spec": {"source": "hf://org/repo"}})
    assert client.objects[f"{PATH}/x"]["spec"] == {"source": "hf://org/repo"}
    assert [method for method, _ in client.calls] == ["PUT", "PUT"]


async def test_an_update_that_always_conflicts_ends() -> None:
    client = FakeClient("x")
    client.before = lambda: client.objects.update({f"{PATH}/x": model("x", version=len(client.calls) + 1)})
    with pytest.raises(ModelRefused) as refused:
        await KubeModelStore(client).update(model("x"))
    assert (refused.value.status, len(client.calls)) == (409, ATTEMPTS)


async def test_a_model_is_deleted_by_its_uid() -> None:
    client = FakeClient("x")
    await KubeModelStore(client).delete("team-a/x")
    assert not client.objects


async def test_a_model_is_read_without_its_status() -> None:
    found = await KubeModelStore(FakeClient("x")).read("team-a/x")
    assert found["spec"] == SPEC
    assert "status" not in found


async def test_what_does_not_exist_is_model_missing() -> None:
    store = KubeModelStore(FakeClient())
    for call in (store.read("team-a/x"), store.delete("team-a/x"), store.update(model("x"))):
        with pytest.raises(ModelMissing):
            await call
