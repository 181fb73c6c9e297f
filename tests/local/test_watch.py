from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from corral_core.sources.locate import WeightsRoots
from corral_server.local.files import ModelFiles, ModelListing
from corral_server.local.watch import log_changes, watch
from tests.local.parts import RecordedLog, document
from tests.support.waiting import auntil


class Watched:
    def __init__(self, first: ModelListing, log: RecordedLog) -> None:
        self.listing = first
        self.log = log

    def apply(self, listing: ModelListing) -> None:
        self.listing = listing

    def parallel(self) -> dict[str, object]:
        return {listed.model.name: listed.model.spec.parallel for listed in self.listing.models}


@asynccontextmanager
async def watching(*paths: Path, resync: float = 0.2) -> AsyncIterator[Watched]:
    files, log = ModelFiles(paths, WeightsRoots()), RecordedLog()
    first = files.read()
    log_changes(log, first, None)
    watched = Watched(first, log)
    task = asyncio.create_task(watch(files, log, watched.apply, last=first, resync=resync))
    try:
        yield watched
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_file_changes_add_change_and_remove_models(tmp_path: Path) -> None:
    async with watching(tmp_path) as watched:
        (tmp_path / "a.yaml").write_text(document("a"))
        await auntil(lambda: watched.parallel() == {"a": "auto"})
        (tmp_path / "a.yaml").write_text(document("a", parallel=2))
        await auntil(lambda: watched.parallel() == {"a": 2})
        (tmp_path / "a.yaml").unlink()
        await auntil(lambda: watched.parallel() == {})
        names = [name for name in ("model_added", "model_changed", "model_removed") if watched.log.events(name)]
        assert names == ["model_added", "model_changed", "model_removed"]


async def test_a_notification_suffices_without_periodic_reads(tmp_path: Path) -> None:
    async with watching(tmp_path, resync=3600) as watched:
        await auntil(lambda: (tmp_path / "a.yaml").write_text(document("a")) and watched.parallel())


async def test_a_file_replaced_by_rename_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(document("a"))

    async with watching(path) as watched:
        (tmp_path / "a.yaml.tmp").write_text(document("a", parallel=3))
        (tmp_path / "a.yaml.tmp").rename(path)
        await auntil(lambda: watched.parallel() == {"a": 3})


async def test_an_invalid_file_is_logged_once_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(document("a", parallel=2))

    async with watching(path) as watched:
        path.write_text(document("a", parallel=0))
        await auntil(lambda: watched.log.events("file_rejected"))
        assert watched.parallel() == {"a": 2}
        path.write_text(document("a", parallel=4))
        await auntil(lambda: watched.parallel() == {"a": 4})
        (rejected,) = watched.log.events("file_rejected")
        assert "spec.parallel" in str(rejected["problem"])


async def test_fields_for_clusters_are_logged_once_with_what_is_used_in_their_place(tmp_path: Path) -> None:
    proxy, secret = {"httpsProxy": "http://proxy:3128"}, {"name": "hub"}
    cluster = {"proxy": proxy, "sourceSecretRef": secret, "cache": {"size": "9Gi"}}
    (tmp_path / "a.yaml").write_text(document("a", **cluster))
    (tmp_path / "b.yaml").write_text(document("b"))
    async with watching(tmp_path) as watched:
        (tmp_path / "a.yaml").write_text(document("a", parallel=2, **cluster))
        await auntil(lambda: watched.parallel() == {"a": 2, "b": "auto"})
        unused = watched.log.events("field_unused")
    assert [line["field"] for line in unused] == ["spec.proxy", "spec.sourceSecretRef", "spec.cache"]
    assert {line["model"] for line in unused} == {"a"}
    assert "HTTPS_PROXY" in str(unused[0]["used"])
