from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from corral_server.local.files import Listing, ModelFiles
from corral_server.local.watch import report, watch
from tests.local.parts import Heard, document, run
from tests.support.waiting import auntil


class Watched:
    def __init__(self, first: Listing, log: Heard) -> None:
        self.listing = first
        self.log = log

    def apply(self, listing: Listing) -> None:
        self.listing = listing

    def parallel(self) -> dict[str, object]:
        return {listed.model.name: listed.model.spec.parallel for listed in self.listing.models}


@asynccontextmanager
async def watching(*paths: Path, resync: float = 0.2) -> AsyncIterator[Watched]:
    files, log = ModelFiles(paths, Path("/weights")), Heard()
    first = files.read()
    report(log, first, None)
    watched = Watched(first, log)
    task = asyncio.create_task(watch(files, log, watched.apply, last=first, resync=resync))
    try:
        yield watched
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def test_models_come_change_and_go_with_their_files(tmp_path: Path) -> None:
    async def test() -> None:
        async with watching(tmp_path) as watched:
            (tmp_path / "a.yaml").write_text(document("a"))
            await auntil(lambda: watched.parallel() == {"a": "auto"})
            (tmp_path / "a.yaml").write_text(document("a", parallel=2))
            await auntil(lambda: watched.parallel() == {"a": 2})
            (tmp_path / "a.yaml").unlink()
            await auntil(lambda: watched.parallel() == {})
            names = [name for name in ("model-added", "model-changed", "model-removed") if watched.log.events(name)]
            assert names == ["model-added", "model-changed", "model-removed"]

    run(test())


def test_a_notification_is_enough_without_looking_again_and_again(tmp_path: Path) -> None:
    async def test() -> None:
        async with watching(tmp_path, resync=3600) as watched:
            await auntil(lambda: (tmp_path / "a.yaml").write_text(document("a")) and watched.parallel())

    run(test())


def test_a_file_that_is_replaced_as_editors_do_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(document("a"))

    async def test() -> None:
        async with watching(path) as watched:
            (tmp_path / "a.yaml.tmp").write_text(document("a", parallel=3))
            (tmp_path / "a.yaml.tmp").rename(path)
            await auntil(lambda: watched.parallel() == {"a": 3})

    run(test())


def test_a_broken_file_is_logged_once_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(document("a", parallel=2))

    async def test() -> None:
        async with watching(path) as watched:
            path.write_text(document("a", parallel=0))
            await auntil(lambda: watched.log.events("file-refused"))
            assert watched.parallel() == {"a": 2}
            path.write_text(document("a", parallel=4))
            await auntil(lambda: watched.parallel() == {"a": 4})
            (refused,) = watched.log.events("file-refused")
            assert "spec.parallel" in str(refused["problem"])

    run(test())
