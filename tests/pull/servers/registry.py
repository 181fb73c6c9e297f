"""A real registry for tests: Debian's ``docker-registry`` on a port of its own, with its own folder.

The registry chooses a free port, and its log names it. It ends with the ``with`` block, and what was pushed is deleted.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import ctypes.util
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.pull.fake_registry import tar_bytes
from tests.support.waiting import until

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
TIMEOUT = 120.0
"""Seconds for the start, and for one upload on a busy machine."""


@dataclass(frozen=True, slots=True)
class TokenServerSettings:
    """What the registry has to know of its token server: its URL, its name, and the certificate of its signatures."""

    realm: str
    issuer: str
    certificate: Path
    service: str = "registry.test"


@dataclass(frozen=True, slots=True)
class DockerRegistry:
    """``host`` is ``address:port``; ``headers`` authorize the test's uploads."""

    host: str
    headers: Mapping[str, str]
    log: Path

    def push_blob(self, repository: str, data: bytes, media_type: str, *, path: str = "") -> dict[str, object]:
        """Upload a blob and return its descriptor; ``path`` becomes ModelPack's annotation."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        with self._client() as client:
            if client.head(f"/v2/{repository}/blobs/{digest}").status_code != 200:
                begun = client.post(f"/v2/{repository}/blobs/uploads/")
                assert begun.status_code == 202, begun.text
                url = httpx.URL(begun.headers["location"]).copy_merge_params({"digest": digest})
                stored = client.put(url, content=data, headers={"Content-Type": "application/octet-stream"})
                assert stored.status_code == 201, stored.text
        descriptor: dict[str, object] = {"mediaType": media_type, "digest": digest, "size": len(data)}
        return descriptor | ({"annotations": {"org.cncf.model.filepath": path}} if path else {})

    def push_manifest(
        self, repository: str, tag: str, manifest: Mapping[str, object], *, media_type: str = OCI_MANIFEST
    ) -> str:
        """Upload a manifest and return its digest."""
        body = json.dumps({"schemaVersion": 2, "mediaType": media_type, **manifest}).encode()
        with self._client() as client:
            headers = {"Content-Type": media_type}
            stored = client.put(f"/v2/{repository}/manifests/{tag}", content=body, headers=headers)
            assert stored.status_code == 201, stored.text
        digest = stored.headers["docker-content-digest"]
        assert isinstance(digest, str)
        return digest

    def push_image(self, files: Mapping[str, bytes], repository: str = "team/image", tag: str = "latest") -> str:
        """Upload a container image with a compressed layer for each file, and return its URI."""
        layers, digests = [], []
        for path, content in files.items():
            archive = tar_bytes({path: content})
            digests.append(f"sha256:{hashlib.sha256(archive).hexdigest()}")
            packed = gzip.compress(archive, 1)
            layers.append(self.push_blob(repository, packed, "application/vnd.oci.image.layer.v1.tar+gzip"))
        described = {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": digests}}
        config = self.push_blob(repository, json.dumps(described).encode(), "application/vnd.oci.image.config.v1+json")
        self.push_manifest(repository, tag, {"config": config, "layers": layers})
        return f"oci://{self.host}/{repository}:{tag}"

    def _client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://{self.host}", headers=self.headers, timeout=TIMEOUT, trust_env=False)


@contextlib.contextmanager
def docker_registry(
    folder: Path,
    *,
    user: tuple[str, str] | None = None,
    tokens: TokenServerSettings | None = None,
    headers: Mapping[str, str] | None = None,
    address: str = "127.0.0.1",
) -> Iterator[DockerRegistry]:
    """Run a registry that demands basic authentication of ``user``, or tokens, or nothing, on an IPv4 address.

    Without the program the test is skipped; with CORRAL_REQUIRE_CLUSTER=1 it fails.
    """
    program = _program()
    (folder / "config.yml").write_text(json.dumps(_config(folder, user, tokens=tokens, address=address)))
    log = folder / "registry.log"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("REGISTRY_", "OTEL_"))}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "serve", str(folder / "config.yml")], env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    try:
        port = until(lambda: _port(process, log), TIMEOUT, what="the registry's port")
        given = dict(headers or {}) | ({"Authorization": _basic(*user)} if user else {})
        yield DockerRegistry(f"{address}:{port}", given, log)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(folder / "data", ignore_errors=True)


def _program() -> str:
    found = shutil.which("docker-registry")
    if found is not None:
        return found
    reason = "docker-registry is not installed (apt-get install docker-registry)"
    if os.environ.get("CORRAL_REQUIRE_CLUSTER") == "1":
        pytest.fail(f"CORRAL_REQUIRE_CLUSTER=1, but {reason}", pytrace=False)
    pytest.skip(reason)


def _config(
    folder: Path, user: tuple[str, str] | None, *, tokens: TokenServerSettings | None, address: str
) -> dict[str, object]:
    auth: dict[str, object] = {}
    if user is not None:
        (folder / "htpasswd").write_text(f"{user[0]}:{_bcrypt(user[1])}\n")
        auth = {"htpasswd": {"realm": "test", "path": str(folder / "htpasswd")}}
    if tokens is not None:
        auth = {
            "token": {
                "realm": tokens.realm,
                "service": tokens.service,
                "issuer": tokens.issuer,
                "rootcertbundle": str(tokens.certificate),
            }
        }
    return {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"{address}:0"},
        **({"auth": auth} if auth else {}),
    }


def _port(process: subprocess.Popen[bytes], log: Path) -> int | None:
    text = log.read_text(errors="replace")
    assert process.poll() is None, f"the registry has ended: {text}"
    found = re.search(r"listening on [0-9.]+:(\d+)", text)
    return int(found[1]) if found else None


def _bcrypt(password: str) -> str:
    """Return a hash for htpasswd by the C library's crypt, as Python has no bcrypt."""
    library = ctypes.CDLL(ctypes.util.find_library("crypt"))
    library.crypt.restype = ctypes.c_char_p
    hashed = library.crypt(password.encode(), b"$2b$05$abcdefghijklmnopqrstuu")
    assert isinstance(hashed, bytes)
    assert hashed.startswith(b"$2b$")
    return hashed.decode()


def _basic(user: str, password: str) -> str:
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
