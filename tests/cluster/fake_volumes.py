"""Fake provisioner: binds every claim of a StorageClass of its own to a volume, as an external provisioner does.

The processes of ``pod_process`` use a folder of the workspace for each claim, and the volumes hold nothing. On a real
node a volume is a folder of the machine that every user can write to, as a kubelet changes no owners there. A volume
grows with its claim.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from corral_core.base.quantities import parse_quantity
from tests.cluster.api import Api, ApiError, Object, at

CLASS = "test-volumes"
_CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
_CLAIMS = "/api/v1/persistentvolumeclaims"
_VOLUMES = "/api/v1/persistentvolumes"
_INTERVAL = 0.1


class FakeVolumes:
    """Runs from construction until ``close``. The class is the default one of the cluster meanwhile.

    ``folder`` is where volumes of a real node are, None for simulated nodes. ``resize`` is called with the folder of a
    volume and its size in bytes, before pods use it and when its claim has grown.
    """

    def __init__(
        self, api: Api, folder: Path | None = None, *, resize: Callable[[Path, int], None] | None = None
    ) -> None:
        self._api = api
        self._folder = folder
        self._resize = resize
        self._made: dict[str, str] = {}
        self._sizes: dict[str, object] = {}
        self._stopping = threading.Event()
        metadata = {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}
        api.create(
            _CLASSES,
            {"metadata": metadata, "provisioner": "test.corral.dev/volumes", "allowVolumeExpansion": True},
        )
        self._thread = threading.Thread(target=self._run, name="fake volumes", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Delete the class and the volumes."""
        self._stopping.set()
        self._thread.join(60)
        for name in self._made.values():
            self._api.delete(f"{_VOLUMES}/{name}")
        self._api.delete(f"{_CLASSES}/{CLASS}")

    def _run(self) -> None:
        while not self._stopping.wait(_INTERVAL):
            with suppress(OSError, ApiError):
                for claim in self._api.items(_CLAIMS):
                    if at(claim, "spec", "storageClassName") == CLASS:
                        self._provide(claim)

    def _provide(self, claim: Object) -> None:
        """Make the volume of a claim, or let it grow."""
        uid, size = str(at(claim, "metadata", "uid")), at(claim, "spec", "resources", "requests", "storage")
        if self._sizes.get(uid) == size:
            return
        if self._folder is not None and self._resize is not None:
            self._resize(self._path(self._folder, uid), int(parse_quantity(str(size))))
        if uid not in self._made:
            self._make(claim, uid)
        else:
            capacity = {"capacity": {"storage": size}}
            self._api.patch(f"{_VOLUMES}/{self._made[uid]}", {"spec": capacity})
            namespace, name = at(claim, "metadata", "namespace"), at(claim, "metadata", "name")
            path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}/status"
            self._api.patch(path, {"status": capacity})
        self._sizes[uid] = size

    def _path(self, folder: Path, uid: str) -> Path:
        path = folder / uid
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o777)
        return path

    def _make(self, claim: Object, uid: str) -> None:
        name = f"volume-{uid}"
        reference = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "namespace": at(claim, "metadata", "namespace"),
            "name": at(claim, "metadata", "name"),
            "uid": uid,
        }
        spec = {
            "capacity": {"storage": at(claim, "spec", "resources", "requests", "storage")},
            "accessModes": at(claim, "spec", "accessModes"),
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
            "claimRef": reference,
            "hostPath": {"path": str(self._path(self._folder, uid)) if self._folder else f"/volumes/{uid}"},
        }
        self._api.create(_VOLUMES, {"metadata": {"name": name}, "spec": spec})
        self._made[uid] = name
