"""Errors of object stores: what obstore reports, as errors that say what to do.

- obstore's text is searched and never passed on. It has the URL of the request, which carries the signature of a shared
  access signature, and what the server wrote.
- Of the server's text only the status and the error code are shown, bounded to letters.
- Connections that fail, timeouts, throttling and 5xx may pass; all else needs a change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from corral_core.base.errors import CorralError, SourceError
from corral_server.pull.errors import FileChanged, TransientError
from corral_server.pull.objects.settings import Provider, Signature, StoreSettings

_STATUS: Final = re.compile(r"non-2xx status code: ([1-5][0-9]{2})\b")
_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_REGION: Final = re.compile(r"<Region>([a-z0-9-]{1,32})</Region>|expecting '([a-z0-9-]{1,32})'")
_SERVER: Final = re.compile(r"Error performing [A-Z]+ https?://([A-Za-z0-9.:\[\]-]{1,260})/")
"""The host of the request, which may be a server of tokens."""
_CERTIFICATE: Final = re.compile(r"invalid peer certificate|InvalidCertificate|UnknownIssuer|CaUsedAsEndEntity")
_PROXY: Final = re.compile(r"ProxyAuthRequired|ProxyAuthorizationRequired|proxy auth", re.IGNORECASE)
_TUNNEL: Final = re.compile(r"TunnelUn|tunnel error", re.IGNORECASE)

_NO_BUCKET: Final = frozenset({"NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted", "ResourceNotFound"})
_WRONG_REGION: Final = frozenset(
    {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
_WRONG_KEYS: Final[dict[str, str]] = {
    "InvalidAccessKeyId": "the access key does not exist",
    "XAdminUserNotFound": "the access key does not exist",  # versitygw
    "SignatureDoesNotMatch": "the secret key does not belong to the access key",
    "InvalidToken": "the session token is not valid",
    "ExpiredToken": "the session token has expired",
    "TokenRefreshRequired": "the session token has expired",
    "RequestTimeTooSkewed": "the clock of this machine differs from the server's",
    "AuthenticationFailed": "the account key or the shared access signature is not valid, or has expired",
    "InvalidAuthenticationInfo": "the token is not valid",
}
_VARIABLES: Final[dict[Provider, str]] = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_SERVICE_ACCOUNT_KEY",
    "az": "AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
}
_BUCKETS: Final[dict[Provider, str]] = {"s3": "bucket", "gs": "bucket", "az": "container"}


class Failure(StrEnum):
    """Kind of an exception of obstore."""

    NOT_FOUND = "not found"
    DENIED = "denied"
    UNAUTHENTICATED = "unauthenticated"
    CHANGED = "changed"
    INVALID = "invalid"
    OTHER = "other"


class NoSuchObject(SourceError):
    """An object that does not exist, in a bucket that may exist."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a request was about: ``uri`` of the object, ``version`` of it if one was asked for."""

    uri: str
    settings: StoreSettings
    version: str = ""

    @property
    def bucket(self) -> str:
        return f"{_BUCKETS[self.settings.provider]} {self.settings.bucket!r} of {self.settings.endpoint.authority}"


def object_error(failure: Failure, text: str, subject: Subject) -> CorralError:
    """Return the error for an exception of obstore with this text."""
    match = _STATUS.search(text)
    status, code = int(match[1]) if match else None, _code(text)
    if code in _NO_BUCKET:
        return SourceError(f"{subject.uri}: the {subject.bucket} does not exist; correct the source or the endpoint")
    if failure is Failure.NOT_FOUND and code not in _WRONG_KEYS:
        return _missing(subject)
    if failure is Failure.CHANGED or status in (412, 416):
        return FileChanged(f"{subject.uri} has been replaced since it was resolved")
    if code in _WRONG_REGION or "redirect without LOCATION" in text or "expecting '" in text:
        return _wrong_region(text, subject)
    if failure in (Failure.DENIED, Failure.UNAUTHENTICATED) or code in _WRONG_KEYS or status == 407:
        return _denied(status, code, subject)
    if status in (408, 429) or (status is not None and status >= 500):
        return TransientError(f"{subject.uri}: {subject.settings.endpoint.authority} answers {_said(status, code)}")
    if status is not None or failure is Failure.INVALID:
        said = f"{subject.settings.endpoint.authority} answers {_said(status, code)}" if status else _INVALID
        return SourceError(f"{subject.uri}: {said}")
    return _without_answer(text, subject)


_INVALID: Final = "the source or a setting of the credentials is not valid for this object store"


def _missing(subject: Subject) -> CorralError:
    if subject.version:
        return FileChanged(f"{subject.uri}: the version that was resolved has been deleted")
    return NoSuchObject(f"{subject.uri}: the {subject.bucket} has no such object; correct the source")


def _denied(status: int | None, code: str, subject: Subject) -> SourceError:
    settings = subject.settings
    variables = _VARIABLES[settings.provider]
    said = _said(status, code)
    if settings.signature is Signature.NONE:
        return SourceError(
            f"{subject.uri}: the {subject.bucket} is not public ({said}); give credentials with {variables} in the "
            "source's Secret"
        )
    if code in _WRONG_KEYS:
        return SourceError(f"{subject.uri}: {settings.endpoint.authority} refuses the credentials: {_WRONG_KEYS[code]}")
    return SourceError(
        f"{subject.uri}: access denied to {settings.signature} ({said}); allow them to read the object and to list "
        f"the {_BUCKETS[settings.provider]}, or correct the name: without permission to list, a missing object is "
        "reported like this too"
    )


def _wrong_region(text: str, subject: Subject) -> SourceError:
    match = _REGION.search(text)
    region = f"AWS_REGION={match[1] or match[2]}" if match else "AWS_REGION to the region of the bucket"
    return SourceError(f"{subject.uri}: the {subject.bucket} is in another region; set {region} in the credentials")


def _without_answer(text: str, subject: Subject) -> CorralError:
    """Return the error for a request without a response: connection, TLS, proxy, timeout, broken body."""
    match = _SERVER.search(text)
    host = match[1] if match else subject.settings.endpoint.authority
    if _CERTIFICATE.search(text):
        return SourceError(
            f"{subject.uri}: the certificate of {host} is not trusted; if a proxy or the server has a certificate of "
            "your own authority, add the authority to the CA bundle"
        )
    if _PROXY.search(text):
        return SourceError(f"{subject.uri}: the proxy refuses the connection to {host}; check its user and password")
    if _TUNNEL.search(text):
        return TransientError(
            f"{subject.uri}: the proxy opens no connection to {host}; check the proxy's user and password, and whether "
            "it allows this host"
        )
    if "NotPartial" in text:
        return SourceError(f"{subject.uri}: {host} ignores ranges, which a pull from an object store needs")
    if "HttpError" not in text:
        return SourceError(f"{subject.uri}: {host} does not answer like this kind of object store, or {_INVALID}")
    way = f"{host} by the proxy" if subject.settings.proxied else host
    for word, said in (("kind: Timeout", "timed out"), ("kind: Connect", "failed: no connection")):
        if word in text:
            return TransientError(f"{subject.uri}: the request to {way} {said}")
    return TransientError(f"{subject.uri}: the request to {way} failed")


def _code(text: str) -> str:
    match = _CODE.search(text)
    return match[1] if match else ""


def _said(status: int | None, code: str) -> str:
    return " ".join(part for part in (f"HTTP {status}" if status else "", code) if part) or "no reason given"
