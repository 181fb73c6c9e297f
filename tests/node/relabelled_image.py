"""The same image under another name and digest, as in a new release.

A label changes the config and with it manifest and index. The layers are left out, because the node has them already.
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


def relabelled_image(archive: Path, name: str, *, folder: Path) -> Path:
    """Write the image of an OCI archive as ``name`` into a new archive and return its path."""
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
    """Add a blob and return its descriptor: that of the replaced blob with the new digest and size."""
    data = json.dumps(content).encode()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    _put(archive, _blob(digest), content)
    return described | {"digest": digest, "size": len(data)}


def _put(archive: tarfile.TarFile, name: str, content: Object) -> None:
    data = json.dumps(content).encode()
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))
