"""Volume with the store of pulled weights: its kind and size, its mount, and the user group that may write to it.

- A puller mounts the store to write, runners mount it read-only. With ``cache.type: ephemeral`` both are containers of
  one pod, and the store ends with it.
- A runner may get an image volume in place of the store (``cache.type: image``).
- ``fsGroup`` makes the volume writable for pods that do not run as root. The kubelet changes the group of existing
  files only if that of the volume's root differs (OnRootMismatch), so a start does not walk over all files. Volumes
  that refuse it, such as most NFS exports, must be writable for the group or for all users themselves.
"""

from __future__ import annotations

from corral_core.base.json_fields import JsonObject
from corral_core.base.quantities import parse_quantity
from corral_core.model.model import Model
from corral_core.model.remote_sources import pulled_in_pod, remote_sources
from corral_operator.observe.pulling.claims import claim_name
from corral_operator.observe.pulling.image_volumes import MountedImage

STORE_PATH = "/store"
WEIGHTS_PATH = "/weights"
"""Where the claim of a ``pvc://`` source or an image of weights is mounted."""
_GROUP = 65532
"""Group of the image's user."""
_MIB = 1024**2
_GIB = 1024**3
_FOLDERS = 16 * _MIB
"""Bytes for what the store has besides files of weights."""
UNKNOWN_SIZE = 32 * _GIB
"""Bytes of a store for a source that does not say its size."""


def store_size(model: Model, total: int, *, in_use: int = 0) -> int:
    """Return the size of the Model's own store in bytes for ``total`` bytes of files, 0 if unknown.

    ``in_use`` are the bytes of other files that a runner uses. The reserve is for the file system itself.
    """
    if model.spec.cache.size is not None:
        return int(parse_quantity(model.spec.cache.size))
    files = total + in_use
    return files + files // 20 + _GIB if total else UNKNOWN_SIZE + in_use


def size_quantity(size: int) -> str:
    """Return a number of bytes as a quantity, rounded up to MiB."""
    return f"{-(-size // _MIB)}Mi"


def pod_storage(model: Model, total: int) -> str:
    """Return the disk space of its node that a runner pod takes for its store, as a quantity; empty if it takes none.

    ``total`` are the bytes of the files, 0 if unknown.
    """
    return size_quantity(store_size(model, total)) if pulled_in_pod(model.spec) else ""


def store_limit(model: Model, total: int) -> int:
    """Return the bytes that a puller may write to the store of its own pod.

    The kubelet evicts a pod whose volume grows over its size, and the next one would do the same. A puller that has too
    little room fails with the numbers instead.
    """
    return max(store_size(model, total) - _FOLDERS, 1)


def store_volumes(model: Model, total: int, *, read_only: bool = True) -> list[JsonObject]:
    """Return the volume for ``total`` bytes of files, 0 if unknown; none for a Model without remote sources."""
    if not remote_sources(model.spec):
        return []
    if storage := pod_storage(model, total):
        return [{"name": "store", "emptyDir": {"sizeLimit": storage}}]
    return [{"name": "store", "persistentVolumeClaim": {"claimName": claim_name(model), "readOnly": read_only}}]


def store_mounts(model: Model, *, read_only: bool = True) -> list[JsonObject]:
    """Return the mount of ``store_volumes``."""
    if not remote_sources(model.spec):
        return []
    return [{"name": "store", "mountPath": STORE_PATH, **({"readOnly": True} if read_only else {})}]


def image_volumes(image: MountedImage) -> list[JsonObject]:
    """Return the volume, which the kubelet pulls once on each node: the reference has a digest."""
    return [{"name": "weights", "image": {"reference": image.reference, "pullPolicy": "IfNotPresent"}}]


def image_mounts() -> list[JsonObject]:
    return [{"name": "weights", "mountPath": WEIGHTS_PATH, "readOnly": True}]


def store_security(model: Model) -> dict[str, object]:
    """Return the fields of a pod's security context that the volume needs."""
    if not remote_sources(model.spec):
        return {}
    return {"fsGroup": _GROUP, "fsGroupChangePolicy": "OnRootMismatch"}
