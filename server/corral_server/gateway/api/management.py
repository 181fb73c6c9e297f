"""Handlers of the requests that make, change and delete Models."""

from __future__ import annotations

from collections.abc import Callable

from corral_server.gateway.api.creation.blobs import BLOBS as BLOBS
from corral_server.gateway.api.creation.blobs import BlobsApi
from corral_server.gateway.api.creation.create import CreateApi
from corral_server.gateway.api.pull_stream import PullFollower
from corral_server.gateway.api.registry import MANAGED, ReadBody, RegistryApi
from corral_server.gateway.directory.directory import Directory
from corral_server.gateway.management.changes import ModelChanges
from corral_server.gateway.management.management import Management


class ManagementHandlers:
    """Requests that make, change and delete Models."""

    def __init__(
        self, directory: Directory, read: ReadBody, draining: Callable[[], bool], *, management: Management | None
    ) -> None:
        pulls = PullFollower(directory, draining)
        changes = ModelChanges(management, directory) if management is not None else None
        blobs = management.blobs if management is not None else None
        self.registry = RegistryApi(directory, read, pulls, changes=changes)
        self.create = CreateApi(directory, read, pulls, changes=changes, blobs=blobs, unmanaged=MANAGED).create
        self.blob = BlobsApi(management, unmanaged=MANAGED).blob
