"""The same image under another name and another digest, as a new release would bring it.

Only what names the layers is made anew: a label changes the configuration, that the manifest, that the index. The
layers themselves are left out, because the node has them.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import cast

from tests.cluster.api import Object, at

_NAME = "org.opencontainers.image.ref.name"
_LABEL = "dev.corral.test/release"


def relabelled(archive: Path, name: str, *, folder: Path) -> Path:
    """Writes the image of an OCI archive as ``name`` into an archive of its own, and returns that."""
    with tarfile.open(archive) as source:
        index = _read(source, "index.json")
        described = cast("Object", at(index, "manifests", 0))
        manifest = _read(source, _blob(at(described, "digest")))
        config = _read(source, _blob(at(manifest, "config", "digest")))
    cast("Object", at(config, "config", "Labels"))[_LABEL] = name
    made = folder / f"{name.replace('/', '-').replace(':', '-')}.tar"
    with tarfile.open(made, "w") as target:
        manifest["config"] = _add(target, config, described=cast("Object", manifest["config"]))
        index["manifests"] = [_add(target, manifest, described=described) | {"annotations": {_NAME: name}}]
        _put(target, "index.json", index)
        _put(target, "oci-layout", {"imageLayoutVersion": "1.0.0"})
    return made


def _blob(digest: object) -> str:
    return "blobs/" + str(digest).replace(":", "/")


def _read(archive: tarfile.TarFile, name: str) -> Object:
    found = archive.extractfile(name)
    assert found is not None, f"no {name} in the image"
    return cast("Object", json.load(found))


def _add(archive: tarfile.TarFile, content: Object, *, described: Object) -> Object:
    """Adds a blob; its description is the one of the blob that it replaces, with digest and size of its own."""
    data = json.dumps(content).encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    _put(archive, _blob(digest), content)
    return described | {"digest": digest, "size": len(data)}


def _put(archive: tarfile.TarFile, name: str, content: Object) -> None:
    data = json.dumps(content).encode()
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
