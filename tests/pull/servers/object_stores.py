"""Real object stores for tests, on loopback ports: versitygw (S3), fake-gcs-server (Google Cloud), azurite (Azure).

Each is started by a context manager in the foreground and ends with it, or with the thread that started it. Its files
are in a folder of the test. fake-gcs-server checks no credentials; azurite has no versions.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import shutil
import socket
import urllib.error
import urllib.request
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit

import obstore
from obstore.store import AzureStore, S3Store

from corral_server.pull.objects.settings import Provider
from tests.cluster.child_processes import Child, minimal_environment
from tests.pull.servers.object_programs import AZURITE, ProgramError, command
from tests.support.authority import KeyPair
from tests.support.ports import free_port
from tests.support.waiting import until

ACCESS_KEY: Final = "AKIDTESTS"
SECRET_KEY: Final = "kept/secret+key"
ACCOUNT: Final = "acme"
ACCOUNT_KEY: Final = b64encode(b"the key of the storage account").decode()
REGION: Final = "us-east-1"


@dataclass(frozen=True, slots=True)
class ObjectServer:
    """A running server. ``options`` are the credentials that may do everything."""

    provider: Provider
    endpoint: str
    options: Mapping[str, str] = field(repr=False)
    child: Child
    folder: Path

    def uri(self, bucket: str, key: str) -> str:
        return f"{self.provider}://{bucket}/{quote(key)}"

    def create(self, bucket: str, *, versions: bool = False, public: bool = False) -> None:
        """Create a bucket or container."""
        match self.provider:
            case "s3":
                (self.folder / "buckets" / bucket).mkdir()
                if versions:
                    state = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
                    _s3_put(self.endpoint, bucket, "versioning", body=state)
                if public:
                    _s3_put(self.endpoint, bucket, "policy", body=_public_policy(bucket))
            case "gs":
                body = json.dumps({"name": bucket, "versioning": {"enabled": versions}}).encode()
                _request("POST", f"{self.endpoint}/storage/v1/b", {"Content-Type": "application/json"}, body=body)
            case "az":
                _az_create(self.endpoint, bucket, public=public)

    def put(self, bucket: str, key: str, data: bytes, *, metadata: Mapping[str, str] | None = None) -> None:
        """Upload an object with metadata of the user."""
        attributes = dict(metadata or {})
        match self.provider:
            case "s3":
                obstore.put(_s3_store(self.endpoint, bucket), key, data, attributes=attributes)
            case "gs":
                _gs_upload(self.endpoint, bucket, key, data=data, metadata=attributes)
            case "az":
                obstore.put(_az_store(self.endpoint, bucket), key, data, attributes=attributes)

    def put_file(self, bucket: str, key: str, data: bytes = b"", *, size: int = 0) -> None:
        """Create an object as a file of the server, without a request; with ``size`` a sparse one of zeros. S3 only."""
        path = self.folder / "buckets" / bucket / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        if size:
            os.truncate(path, size)

    def shared_access_signature(self, bucket: str, key: str) -> str:
        """Return a signature that allows to read one object for an hour; Azure only."""
        return urlsplit(obstore.sign(_az_store(self.endpoint, bucket), "GET", key, timedelta(hours=1))).query


@contextlib.contextmanager
def s3_server(folder: Path, *, tls: KeyPair | None = None, host: str = "127.0.0.1") -> Iterator[ObjectServer]:
    """Run versitygw on a folder, whose subfolders are the buckets."""
    for name in ("buckets", "versions"):
        (folder / name).mkdir(parents=True)
    port = free_port()
    gateway = ["--port", f"127.0.0.1:{port}", "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--region", REGION]
    gateway += ["--cert", str(tls.certificate), "--key", str(tls.key)] if tls else []
    storage = ["posix", "--versioning-dir", str(folder / "versions"), "--default-etag", "file", str(folder / "buckets")]
    endpoint = f"{'https' if tls else 'http'}://{host}:{port}"
    options = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": REGION,
    }
    with _running([*command("versitygw"), *gateway, *storage], folder, port=port) as child:
        yield ObjectServer("s3", endpoint, options, child, folder)


@contextlib.contextmanager
def gs_server(folder: Path) -> Iterator[ObjectServer]:
    """Run fake-gcs-server with its objects in memory; its storage in files has no versions."""
    port = free_port()
    where = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"]
    endpoint = f"http://127.0.0.1:{port}"
    with _running([*command("fake-gcs-server"), *where, "-backend", "memory"], folder, port=port) as child:
        yield ObjectServer("gs", endpoint, {"GOOGLE_BASE_URL": endpoint}, child, folder)


@contextlib.contextmanager
def az_server(folder: Path) -> Iterator[ObjectServer]:
    """Run azurite with one storage account."""
    port = free_port()
    where = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", str(folder)]
    quiet = ["--silent", "--skipApiVersionCheck", "--disableTelemetry"]
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    options = {
        "AZURE_STORAGE_ENDPOINT": endpoint,
        "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY,
    }
    accounts = {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{ACCOUNT_KEY}"}
    with _running([*command(AZURITE), *where, *quiet], folder, port=port, environment=accounts) as child:
        yield ObjectServer("az", endpoint, options, child, folder)


@contextlib.contextmanager
def _running(
    arguments: Sequence[str], folder: Path, *, port: int, environment: Mapping[str, str] | None = None
) -> Iterator[Child]:
    if shutil.which("setpriv") is None:
        raise ProgramError("setpriv is not installed (package util-linux)")
    name = Path(arguments[0]).name
    variables = minimal_environment(extra={"HOME": str(folder), **(environment or {})})
    child = Child(name, arguments, log=folder / "server.log", environment=variables)
    try:

        def listens() -> bool:
            if not child.alive:
                raise RuntimeError(f"{name} ended: {child.tail()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return True
            return False

        until(listens, timeout=60, what=f"{name} listening", interval=0.05)
        yield child
    finally:
        child.stop(5)


def _s3_store(endpoint: str, bucket: str) -> S3Store:
    return S3Store(
        bucket,
        endpoint=endpoint,
        region=REGION,
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
        client_options={"allow_http": True},
    )


def _az_store(endpoint: str, container: str) -> AzureStore:
    return AzureStore(
        container,
        account_name=ACCOUNT,
        account_key=ACCOUNT_KEY,
        endpoint=endpoint,
        client_options={"allow_http": True},
    )


def _request(method: str, url: str, headers: Mapping[str, str], *, body: bytes = b"") -> None:
    request = urllib.request.Request(url, data=body, method=method, headers=dict(headers))
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as response:
            assert 200 <= response.status < 300
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{method} {url}: {error.code} {error.read()[:500]!r}") from error


def _gs_upload(endpoint: str, bucket: str, key: str, *, data: bytes, metadata: Mapping[str, str]) -> None:
    """https://cloud.google.com/storage/docs/uploading-objects#rest-upload-objects, multipart/related."""
    about = json.dumps({"name": key, "metadata": dict(metadata)})
    kinds = ("application/json", "application/octet-stream")
    first, second = (f"--part\r\nContent-Type: {kind}\r\n\r\n" for kind in kinds)
    head = f"{first}{about}\r\n{second}"
    url = f"{endpoint}/upload/storage/v1/b/{bucket}/o?uploadType=multipart"
    kind = {"Content-Type": "multipart/related; boundary=part"}
    _request("POST", url, kind, body=head.encode() + data + b"\r\n--part--\r\n")


def _az_create(endpoint: str, container: str, *, public: bool) -> None:
    """Create a container, signed by the account's key.

    https://learn.microsoft.com/en-us/rest/api/storageservices/authorize-with-shared-key
    """
    headers = {"x-ms-date": format_datetime(datetime.now(UTC), usegmt=True), "x-ms-version": "2023-11-03"}
    if public:
        headers["x-ms-blob-public-access"] = "container"
    canonical = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
    text = f"PUT{chr(10) * 12}{canonical}/{ACCOUNT}/{ACCOUNT}/{container}\nrestype:container"
    signature = b64encode(hmac.digest(b64decode(ACCOUNT_KEY), text.encode(), "sha256")).decode()
    headers |= {"Authorization": f"SharedKey {ACCOUNT}:{signature}", "Content-Length": "0"}
    headers["Content-Type"] = ""
    _request("PUT", f"{endpoint}/{container}?restype=container", headers)


def _s3_put(endpoint: str, bucket: str, subresource: str, *, body: bytes) -> None:
    """Set a subresource of a bucket, signed by version 4.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
    """
    now = datetime.now(UTC)
    day, stamp = now.strftime("%Y%m%d"), now.strftime("%Y%m%dT%H%M%SZ")
    digest = hashlib.sha256(body).hexdigest()
    host = endpoint.partition("://")[2]
    signed = {"host": host, "x-amz-content-sha256": digest, "x-amz-date": stamp}
    names = ";".join(signed)
    lines = "".join(f"{name}:{value}\n" for name, value in signed.items())
    canonical = f"PUT\n/{bucket}\n{subresource}=\n{lines}\n{names}\n{digest}"
    scope = f"{day}/{REGION}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{SECRET_KEY}".encode()
    for part in (day, REGION, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.new(key, text.encode(), "sha256").hexdigest()
    credential = f"Credential={ACCESS_KEY}/{scope}, SignedHeaders={names}, Signature={signature}"
    headers = {**signed, "Authorization": f"AWS4-HMAC-SHA256 {credential}"}
    _request("PUT", f"{endpoint}/{bucket}?{subresource}=", headers, body=body)


def _public_policy(bucket: str) -> bytes:
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    allowed = {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": resources}
    return json.dumps({"Version": "2012-10-17", "Statement": [allowed]}).encode()
