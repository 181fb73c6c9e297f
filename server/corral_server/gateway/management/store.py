"""Where Models are written: the API server, or files in local mode.

ManagementError
├── ModelExists       a Model of this key exists
├── ModelMissing      there is no Model of this key
├── ModelRefused      the store refuses the Model (quota, admission policy, validation), with an HTTP status
├── DigestMismatch    a blob that does not have the digest that it was sent with (``blobs``)
└── BlobRefused       a blob that cannot be stored, with an HTTP status (``blobs``)
"""

from __future__ import annotations

from typing import Protocol

from corral_core.base.errors import CorralError
from corral_core.base.json_fields import JsonObject, get_str

CREATED_BY = "corral.dev/created-by"
"""Label of the Models that clients made; its value is ``API``. Other Models belong to the author of a manifest."""
API = "api"


class ManagementError(CorralError):
    """Base of the errors of this package; the text is for clients."""


class ModelExists(ManagementError):
    """A Model of this key exists."""


class ModelMissing(ManagementError):
    """There is no Model of this key."""


class ModelRefused(ManagementError):
    """The store refuses the change. ``status`` is the HTTP status for the client, 403, 422 or 503 for example."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class ModelStore(Protocol):
    """Writes Models.

    A ``resource`` is a whole Model document, as ``kubectl`` would apply it: apiVersion, kind, metadata (namespace,
    name, labels, annotations) and spec. A ``key`` is ``namespace/name``. Each method may raise ModelRefused.
    """

    async def create(self, resource: JsonObject) -> None:
        """Create a Model. Raises ModelExists."""

    async def update(self, resource: JsonObject) -> None:
        """Replace the labels and the spec of a Model. Raises ModelMissing."""

    async def delete(self, key: str) -> None:
        """Delete a Model. Raises ModelMissing."""

    async def read(self, key: str) -> JsonObject:
        """Return the document of a Model, without its status. Raises ModelMissing."""


def made_by_api(resource: JsonObject) -> bool:
    """Return whether a client made the Model."""
    return get_str(resource, "metadata", "labels", CREATED_BY) == API
