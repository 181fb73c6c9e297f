"""Uploaded weights in the store, and the removal of what no Model uses."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from corral_core.base.json_fields import JsonObject
from corral_core.model.model import ModelSpec
from corral_core.model.resource import parse_model
from corral_core.sources.locate import locate_weights
from corral_core.sources.snapshot import FileRole, SnapshotFile, hold_snapshot
from corral_core.sources.uri import parse_source
from corral_server.gateway.management.blobs import BlobRefused, DigestMismatch
from corral_server.local.cli.cache import prune_cache
from corral_server.local.management.blobs import LocalBlobStore
from corral_server.local.management.removal import UNUSED_AGE, WeightsRemoval, spec_sources
from corral_server.local.management.uploads import UploadedWeights
from corral_server.pull.collect import MINIMUM_AGE
from corral_server.pull.store import WeightsStore
from corral_server.pull.stored import stored_blobs, stored_sources, uploaded_ids

CONTENT = b"weights" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
DIGEST = f"sha256:{SHA256}"
PULLED = "ollama://tiny"


async def chunks(data: bytes = CONTENT, size: int = 1000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def spec(source: str) -> ModelSpec:
    resource: JsonObject = {"metadata": {"name": "m"}, "spec": {"source": source}}
    return parse_model(resource).spec


class Parts:
    """Blob store and removal of a server whose Models are in ``folder``."""

    def __init__(self, root: Path, folder: str = "/models") -> None:
        self.store = WeightsStore(root)
        self.uploads = UploadedWeights(self.store, Path(folder))
        self.blobs = LocalBlobStore(self.store, self.uploads)
        known = {source.snapshot.uri: source.snapshot for source in stored_sources(self.store)}
        self.removal = WeightsRemoval(self.store, self.uploads, known.get)

    def stored(self) -> list[str]:
        return [blob.sha256 for blob in stored_blobs(self.store)]

    def files(self) -> list[Path]:
        return [path for path in self.store.root.rglob("*") if path.is_file()]

    def age(self, seconds: float) -> None:
        """Make everything in the store this much older."""
        for path in [*self.store.root.glob("blobs/*"), *self.store.root.glob("snapshots/*/*")]:
            changed = path.lstat().st_mtime - seconds
            os.utime(path, (changed, changed), follow_symlinks=False)


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path / "a store")


async def test_an_uploaded_blob_is_a_source_of_weights(parts: Parts) -> None:
    assert not await parts.blobs.has(DIGEST)
    await parts.blobs.write(DIGEST, chunks())
    assert await parts.blobs.has(DIGEST)
    assert locate_weights(parse_source(parts.blobs.source(DIGEST))).read_bytes() == CONTENT
    assert {path.name for path in parts.files()} == {f"sha256-{SHA256}", "upload.gguf", "snapshot.json"}


async def test_content_with_another_digest_is_refused_and_leaves_nothing(parts: Parts) -> None:
    got = hashlib.sha256(b"other").hexdigest()
    with pytest.raises(DigestMismatch, match=f'digest mismatch, expected "{DIGEST}", got "sha256:{got}"'):
        await parts.blobs.write(DIGEST, chunks(b"other"))
    assert not await parts.blobs.has(DIGEST)
    assert parts.files() == []


async def test_an_upload_that_breaks_off_leaves_nothing(parts: Parts) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield CONTENT
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await parts.blobs.write(DIGEST, broken())
    assert parts.files() == []


@pytest.mark.parametrize("digest", ["sha256:../../x", "sha256:" + "A" * 64, "md5:" + "0" * 64, SHA256, "sha256:"])
async def test_a_digest_that_is_none_is_refused(parts: Parts, digest: str) -> None:
    with pytest.raises(BlobRefused) as refused:
        await parts.blobs.write(digest, chunks())
    assert refused.value.status == 400
    with pytest.raises(BlobRefused):
        parts.blobs.source(digest)


def test_adapters_and_the_projector_count_as_used() -> None:
    fields = {
        "source": "ollama://a",
        "projector": "file:///p.gguf",
        "adapters": [{"name": "b", "source": "ollama://b"}],
    }
    model = parse_model({"metadata": {"name": "m"}, "spec": fields})
    assert set(spec_sources([model.spec])) == {"ollama://a", "ollama://b", "file:///p.gguf"}


def test_a_blob_that_is_not_stored_is_no_source(parts: Parts) -> None:
    with pytest.raises(BlobRefused, match="upload it with POST /api/blobs/sha256:"):
        parts.blobs.source(DIGEST)


async def test_a_new_upload_stays_for_a_day_without_a_model(parts: Parts) -> None:
    await parts.blobs.write(DIGEST, chunks())
    assert parts.removal.remove(()) == []
    restarted = Parts(parts.store.root)
    parts.age(UNUSED_AGE - 60)
    assert restarted.removal.remove(()) == []
    parts.age(120)
    assert restarted.removal.remove(()) == [parts.uploads.uri(SHA256)]
    assert restarted.stored() == []


async def test_weights_that_a_model_uses_are_never_removed(parts: Parts) -> None:
    await parts.blobs.write(DIGEST, chunks())
    used = {parts.uploads.uri(SHA256)}
    parts.uploads.note_used(used)
    parts.age(2 * UNUSED_AGE)
    assert parts.removal.remove(used) == []
    assert parts.removal.remove(()) == [], "the use counts as of now"
    assert parts.stored() == [SHA256]


async def test_weights_of_a_deleted_model_are_removed_once_they_are_old_enough(parts: Parts) -> None:
    await parts.blobs.write(DIGEST, chunks())
    before = spec(parts.blobs.source(DIGEST))
    parts.uploads.note_used([before.source])
    parts.removal.drop(before, used=())
    assert parts.removal.remove(()) == []
    assert parts.removal.interval < MINIMUM_AGE, "it is tried again soon"
    parts.age(MINIMUM_AGE + 1)
    assert parts.removal.remove(()) == [before.source]
    assert parts.stored() == []


async def test_weights_of_a_deleted_model_stay_for_another_model_and_for_a_client(parts: Parts) -> None:
    await parts.blobs.write(DIGEST, chunks())
    before = spec(parts.blobs.source(DIGEST))
    parts.uploads.note_used([before.source])
    parts.age(2 * UNUSED_AGE)
    parts.removal.drop(before, used={before.source})
    assert parts.removal.remove({before.source}) == []
    parts.removal.drop(before, used=())
    assert await parts.blobs.has(DIGEST), "a client asks for it to name it"
    assert parts.removal.remove(()) == []


async def test_a_server_removes_no_upload_of_another_folder(parts: Parts) -> None:
    await parts.blobs.write(DIGEST, chunks())
    other = Parts(parts.store.root, "/other")
    assert await other.blobs.has(DIGEST)
    parts.age(2 * UNUSED_AGE)
    assert Parts(parts.store.root, "/other").removal.remove(()) == [parts.uploads.uri(SHA256)]
    assert parts.stored() == [SHA256], "the snapshot of the first folder has it too"


async def test_a_pruned_cache_keeps_uploads(parts: Parts, tmp_path: Path) -> None:
    kept = Parts(tmp_path / "corral")
    await kept.blobs.write(DIGEST, chunks())
    kept.age(2 * UNUSED_AGE)
    assert prune_cache({"OLLAMA_MODELS": str(tmp_path)}, age=0.0, size_limit=0) == 0
    assert len(uploaded_ids(kept.store)) == 1
    assert kept.stored() == [SHA256]


@pytest.mark.parametrize("held", [False, True])
async def test_pulled_weights_go_with_the_deleted_model_when_no_process_holds_them(parts: Parts, held: bool) -> None:
    await parts.blobs.write(DIGEST, chunks())
    file = SnapshotFile("tiny.gguf", FileRole.WEIGHTS, SHA256, len(CONTENT))
    snapshot = parts.store.publish(PULLED, "pin", files=[file])
    parts.age(2 * UNUSED_AGE)
    later = Parts(parts.store.root, "/other")
    later.removal.drop(spec(PULLED), used=())
    holder = hold_snapshot(parts.store.root, snapshot.id) if held else -1
    assert later.removal.remove(()) == ([] if held else [PULLED])
    if held:
        os.close(holder)
        assert later.removal.remove(()) == [PULLED]
