"""Files of the Models that clients create."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corral_core.base.json_fields import JsonObject
from corral_core.model.documents import load_documents
from corral_core.sources.locate import WeightsRoots
from corral_server.gateway.management.store import ModelExists, ModelMissing, ModelRefused
from corral_server.local.files import ModelFiles, ModelListing
from corral_server.local.management.model_documents import encoded_model
from corral_server.local.management.model_store import FileModelStore
from corral_server.local.watch import Refresh, watch
from tests.local.parts import RecordedLog, document


def resource(name: str, namespace: str = "default", **spec: object) -> dict[str, object]:
    metadata = {"namespace": namespace, "name": name, "labels": {"corral.dev/created-by": "api"}}
    fields = {"source": "file:///nowhere.gguf"} | spec
    return {"apiVersion": "corral.dev/v1alpha1", "kind": "Model", "metadata": metadata, "spec": fields}


def files_in(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


@dataclass
class Stack:
    """The store with the watch that it is used with; ``keys`` are the Models that are served."""

    store: FileModelStore
    folder: Path
    listing: ModelListing
    released: list[JsonObject] = field(default_factory=list)

    @property
    def keys(self) -> list[str]:
        return [listed.model.key for listed in self.listing.models]


@asynccontextmanager
async def stack(tmp_path: Path, *named: Path) -> AsyncIterator[Stack]:
    folder = tmp_path / "created"
    folder.mkdir(exist_ok=True)
    files, refresh, log = ModelFiles((*named, folder), WeightsRoots()), Refresh(), RecordedLog()

    async def released(before: JsonObject) -> None:
        found.released.append(before)

    def apply(listing: ModelListing) -> None:
        found.listing = listing

    store = FileModelStore(folder, files.file_of, refresh.applied, released=released)
    found = Stack(store, folder, files.read())
    task = asyncio.create_task(watch(files, log, apply, last=found.listing, resync=3600, refresh=refresh))
    try:
        yield found
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_created_model_is_served_when_the_method_returns_and_after_a_restart(tmp_path: Path) -> None:
    template = "{{ if .System }}\n  {{ .System }}\t\n{{ end }}\n\n"
    async with stack(tmp_path) as first:
        await first.store.create(resource("m", template=template))
        assert first.keys == ["default/m"]
        assert files_in(first.folder) == ["m.yaml"], "no temporary file is left"
    async with stack(tmp_path) as second:
        assert second.listing.models[0].model.spec.template == template
        assert await second.store.read("default/m") == resource("m", template=template)


async def test_a_model_that_exists_in_any_file_is_not_created_again(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(document("m"))
    async with stack(tmp_path, mine) as found:
        with pytest.raises(ModelExists, match=str(mine)):
            await found.store.create(resource("m"))
        await found.store.create(resource("other"))
        with pytest.raises(ModelExists):
            await found.store.create(resource("other"))


async def test_an_updated_model_is_served_at_once_and_its_former_document_is_released(tmp_path: Path) -> None:
    async with stack(tmp_path) as found:
        await found.store.create(resource("m"))
        await found.store.update(resource("m", system="be brief"))
        assert found.listing.models[0].model.spec.system == "be brief"
        assert found.released == [resource("m")]


async def test_a_deleted_model_is_gone_with_its_file(tmp_path: Path) -> None:
    async with stack(tmp_path) as found:
        await found.store.create(resource("m", "team"))
        assert files_in(found.folder) == ["team_m.yaml"]
        await found.store.delete("team/m")
        assert (found.keys, files_in(found.folder)) == ([], [])
        assert found.released == [resource("m", "team")]
        with pytest.raises(ModelMissing):
            await found.store.delete("team/m")
        with pytest.raises(ModelMissing):
            await found.store.update(resource("m", "team"))


async def test_files_of_the_command_line_are_read_and_never_changed(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(text := document("m", system="hello"))
    async with stack(tmp_path, mine) as found:
        read = await found.store.read("default/m")
        assert (read["kind"], read["metadata"]) == ("Model", {"namespace": "default", "name": "m"})
        with pytest.raises(ModelRefused, match=f"{mine}, which is not changed by the API") as refused:
            await found.store.update(resource("m"))
        with pytest.raises(ModelRefused, match=str(mine)):
            await found.store.delete("default/m")
    assert refused.value.status == 403
    assert mine.read_text() == text


async def test_a_file_of_the_folder_with_several_models_is_not_changed(tmp_path: Path) -> None:
    async with stack(tmp_path) as found:
        (found.folder / "m.yaml").write_text(text := document("m") + "---\n" + document("n"))
        await found.store.create(resource("other"))
        with pytest.raises(ModelRefused, match="has other Models than default/m"):
            await found.store.delete("default/m")
        assert (found.folder / "m.yaml").read_text() == text


@pytest.mark.parametrize("name", ["../m", "/etc/m", "a/b", "..", ".m", "a_b", "A", "", "m\n", "x" * 64])
async def test_a_hostile_name_writes_no_file(tmp_path: Path, name: str) -> None:
    async with stack(tmp_path) as found:
        for hostile in (resource(name), resource("m", namespace=name or "../x")):
            with pytest.raises(ModelRefused) as refused:
                await found.store.create(hostile)
            assert refused.value.status == 422
            assert "metadata.name" in str(refused.value)
        with pytest.raises(ModelMissing):
            await found.store.delete(f"default/{name}")
        with pytest.raises(ModelMissing):
            await found.store.read(f"{name}/m")
    assert files_in(tmp_path) == []


async def test_an_invalid_spec_is_refused_with_its_problems(tmp_path: Path) -> None:
    async with stack(tmp_path) as found:
        with pytest.raises(ModelRefused, match=r"spec\.parallel") as refused:
            await found.store.create(resource("m", parallel=0))
    assert refused.value.status == 422


async def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    async with stack(tmp_path) as found:
        found.folder.rmdir()
        found.folder.write_text("a file")
        with pytest.raises(ModelRefused, match="check its folder") as refused:
            await found.store.create(resource("m"))
    assert refused.value.status == 500


@settings(max_examples=50)
@given(st.text(max_size=40))
def test_any_text_is_written_as_it_is(text: str) -> None:
    written = resource("m", system=text)
    assert list(load_documents(encoded_model(written)[1].decode(), label="file")) == [written]
