"""Object stores by obstore: ranges, attributes and lists of objects. The only module that imports obstore.

- A stream holds at most ``CHUNK`` bytes and one piece of the connection's buffer. Measured: a process that reads 1 GiB
  has 41 MiB resident at most, and 37 MiB if it reads 1 KiB. obstore releases the GIL while it waits.
- The ETag of every response is its ``version``. An object that is located by a version id is read by that id.
- obstore tries a request again ``RETRIES`` times at most, and one for a range ``RANGE_RETRIES`` times: the downloader
  tries a range again itself, with its own delays.
- What a server says of an object is bounded here; see ``objects.errors`` for the texts of errors.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NoReturn, cast
from urllib.parse import quote, unquote

import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
    UnknownConfigurationKeyError,
)
from obstore.store import AzureStore, GCSStore, ObjectStore, S3Store

from corral_core.base.errors import SourceError
from corral_core.sources.forms import BucketSource
from corral_server.pull.credentials import Credentials
from corral_server.pull.http.settings import NetworkSettings
from corral_server.pull.objects.errors import Failure, Subject, object_error
from corral_server.pull.objects.settings import AccessKey, Provider, StoreSettings, store_settings
from corral_server.pull.remote_files import Location, ObjectLocation

if TYPE_CHECKING:  # obstore declares these names for type checkers only
    from obstore.store import (
        AzureConfig,
        ClientConfig,
        GCSConfig,
        RetryConfig,
        S3Config,
        S3Credential,
        S3CredentialProvider,
    )

CHUNK: Final = 256 * 1024
"""Bytes that a stream collects before ``readinto`` returns some."""
RETRIES: Final = 4
RANGE_RETRIES: Final = 1
_RETRY_TIME: Final = timedelta(seconds=60)
_LIST_PAGE: Final = 1000
_MAX_ID: Final = 1024
"""Characters of an ETag or a version id: the limit of S3."""

_PROVIDERS: Final[Mapping[str, Provider]] = {"s3": "s3", "gs": "gs", "az": "az"}
_FAILURES: Final = (
    (FileNotFoundError, Failure.NOT_FOUND),
    (PermissionDeniedError, Failure.DENIED),
    (UnauthenticatedError, Failure.UNAUTHENTICATED),
    (PreconditionError, Failure.CHANGED),
    ((InvalidPathError, UnknownConfigurationKeyError, ValueError), Failure.INVALID),
)
_ERRORS: Final = (BaseError, FileNotFoundError, ValueError)
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Attributes of an object.

    ``etag`` and ``version`` are empty if the server has none. ``sha256`` is the object's metadata of that name, which
    its uploader has set, None without. ``is_folder`` marks the folders of Azure's hierarchical namespace.
    """

    uri: str
    size: int
    etag: str = ""
    version: str = ""
    sha256: str | None = None
    is_folder: bool = False


class ObjectStream:
    """Bytes of one response, see ``remote_files.ByteStream``."""

    def __init__(self, result: obstore.GetResult, subject: Subject) -> None:
        self.start = result.range[0]
        self.total: int | None = result.meta["size"]
        self.version = _identifier(result.meta["e_tag"])
        self._subject = subject
        self._chunks: obstore.BytesStream | None = result.stream(min_chunk_size=CHUNK)
        self._rest = memoryview(b"")

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer; return 0 at the end. Raises TransientError, and FileChanged for a replaced object."""
        if not self._rest:
            self._rest = memoryview(self._next())
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Drop the response, which closes a connection that has not been read to the end."""
        self._chunks, self._rest = None, memoryview(b"")

    def _next(self) -> bytes:
        if self._chunks is None:
            return b""
        try:
            return next(self._chunks)
        except StopIteration:
            self.close()
            return b""
        except _ERRORS as error:
            self.close()
            _raise(error, self._subject)


class ObjectReader:
    """Reads objects of S3, Google Cloud Storage and Azure; a ``RangeReader`` of ObjectLocation. Thread-safe.

    ``environ`` has the identity of the pod or machine, which signs requests if the credentials have no keys.
    """

    def __init__(
        self, credentials: Credentials, network: NetworkSettings, *, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._options = dict(credentials.options)
        self._network = network
        self._environ = environ
        self._lock = threading.Lock()
        self._opened: dict[tuple[Provider, str, int], tuple[ObjectStore, StoreSettings]] = {}

    def open(self, location: Location, *, start: int = 0, end: int | None = None) -> ObjectStream:
        """Open the bytes from ``start`` up to but without ``end``.

        Raises SourceError, TransientError, and FileChanged for an object or a version that is not there any more.
        """
        if not isinstance(location, ObjectLocation):
            raise TypeError("the reader of object stores reads object locations")
        store, key, subject = self._subject(location.uri, location.version, retries=RANGE_RETRIES)
        options: obstore.GetOptions = {"version": location.version} if location.version else {}
        if end is not None:
            options["range"] = (start, end)
        elif start:
            options["range"] = {"offset": start}
        try:
            return ObjectStream(obstore.get(store, key, options=options), subject)
        except _ERRORS as error:
            _raise(error, subject)

    def info(self, uri: str, *, version: str = "") -> ObjectInfo:
        """Return the attributes of an object. Raises NoSuchObject, SourceError, TransientError and FileChanged."""
        store, key, subject = self._subject(uri, version)
        options: obstore.GetOptions = {"version": version} if version else {}
        try:
            result = obstore.get(store, key, options={**options, "head": True})
        except FileNotFoundError as error:
            _raise(error, subject)
        except _ERRORS:  # the response to HEAD has no body, and so no reason
            try:
                result = obstore.get(store, key, options={**options, "range": (0, 1)})
            except _ERRORS as error:
                _raise(error, subject)
        meta, attributes = result.meta, {name.lower(): value for name, value in result.attributes.items()}
        digest = attributes.get("sha256", "").lower()
        return ObjectInfo(
            uri,
            meta["size"],
            etag=_identifier(meta["e_tag"]),
            version=_version(meta["version"]),
            sha256=digest if _SHA256.fullmatch(digest) else None,
            is_folder=attributes.get("hdi_isfolder") == "true",
        )

    def names(self, uri: str, *, limit: int) -> list[str]:
        """Return the URIs of the objects below a folder, at any depth, in order. Raises SourceError and TransientError.

        More than ``limit`` objects are an error.
        """
        store, key, subject = self._subject(uri)
        found: list[str] = []
        try:
            for page in obstore.list(store, key, chunk_size=_LIST_PAGE):
                found.extend(meta["path"] for meta in page if meta["path"].startswith(f"{key}/"))
                if len(found) > limit:
                    raise SourceError(f"{uri} has more than {limit} objects below it; name one object")
        except (InvalidPathError, ValueError):
            raise SourceError(
                f"{uri}: an object below it has a name with empty parts, '.', '..' or control characters; name one "
                "object"
            ) from None
        except _ERRORS as error:
            _raise(error, subject)
        settings = subject.settings
        return [f"{settings.provider}://{settings.bucket}/{quote(path)}" for path in sorted(found)]

    def _subject(self, uri: str, version: str = "", *, retries: int = RETRIES) -> tuple[ObjectStore, str, Subject]:
        """Return the store of an object's bucket, the object's key, and what errors need."""
        scheme, _, rest = uri.partition("://")
        bucket, _, key = rest.partition("/")
        provider = _PROVIDERS[scheme]
        with self._lock:
            opened = provider, bucket, retries
            if opened not in self._opened:
                settings = store_settings(
                    provider, bucket, options=self._options, network=self._network, environ=self._environ
                )
                self._opened[opened] = _store(settings, retries), settings
            store, settings = self._opened[opened]
        return store, unquote(key), Subject(uri, settings, version)


def object_uri(source: BucketSource) -> str:
    """Return the URI of a source's object in the form that ObjectLocation has: the key is percent-encoded."""
    return f"{source.provider}://{source.bucket}/{quote(source.key)}"


def _store(settings: StoreSettings, attempts: int) -> ObjectStore:
    """Return obstore's store of a bucket. Raises SourceError if it refuses a setting, whose value is not shown."""
    retries: RetryConfig = {"max_retries": attempts, "retry_timeout": _RETRY_TIME}
    config, client = dict(settings.config), cast("ClientConfig", dict(settings.client))
    bucket, failed = settings.bucket, ""
    try:
        if settings.provider == "gs":
            return GCSStore(bucket, config=cast("GCSConfig", config), client_options=client, retry_config=retries)
        if settings.provider == "az":
            return AzureStore(bucket, config=cast("AzureConfig", config), client_options=client, retry_config=retries)
        return S3Store(
            bucket,
            config=cast("S3Config", config),
            client_options=client,
            retry_config=retries,
            credential_provider=_provider(settings.access_key),
        )
    except _ERRORS as error:
        failed = "the CA bundle" if "certificate" in str(error).lower() else "a value of the credentials"
    raise SourceError(f"{settings.provider}://{bucket}: {failed} is not valid: obstore cannot use it")


def _provider(key: AccessKey | None) -> S3CredentialProvider | None:
    """Return a provider of the key, which has precedence over everything that obstore finds in the environment."""
    if key is None:
        return None
    credential: S3Credential = {
        "access_key_id": key.id,
        "secret_access_key": key.secret,
        "token": key.token or None,
        "expires_at": None,
    }
    return lambda: credential


def _raise(error: Exception, subject: Subject) -> NoReturn:
    """Raise the error that says what to do. obstore's own, which may carry a signature, is not its cause."""
    failure = next((kind for types, kind in _FAILURES if isinstance(error, types)), Failure.OTHER)
    raise object_error(failure, str(error), subject) from None


def _identifier(text: str | None) -> str:
    """Return an ETag, empty if it is none that can be compared."""
    return text if text and len(text) <= _MAX_ID and text.isascii() and text.isprintable() else ""


def _version(text: str | None) -> str:
    """Return a version id. S3 has ``null`` for objects without one."""
    return "" if text == "null" else _identifier(text)
