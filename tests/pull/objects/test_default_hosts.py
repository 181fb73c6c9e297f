"""Hosts of the providers, reached by a proxy that connects every name to one scripted server.

They are the ones that docs/sources.md lists for an allow-list.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from corral_core.base.errors import SourceError
from corral_server.pull.credentials import Credentials
from corral_server.pull.http.settings import NetworkSettings, ProxyServer
from corral_server.pull.objects.reader import ObjectReader
from tests.pull.objects.scripted_store import HEADERS, Reply, scripted_store
from tests.support.authority import Authority

PAGE = Path(__file__).parents[3] / "docs/sources.md"
S3, STS = "s3.eu-west-1.amazonaws.com", "sts.eu-west-1.amazonaws.com"
GCS, GOOGLE_TOKENS = "storage.googleapis.com", "accounts.google.com"
AZURE, AZURE_TOKENS = "acme.blob.core.windows.net", "login.microsoftonline.com"
VIRTUAL_HOST = f"models.{S3}"
HOSTS = (S3, STS, GCS, GOOGLE_TOKENS, AZURE, AZURE_TOKENS)
TOKEN = json.dumps({"access_token": "a-token", "expires_in": 3600, "token_type": "Bearer"})
ROLE = (
    "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAROLE</AccessKeyId>"
    "<SecretAccessKey>secret</SecretAccessKey><SessionToken>session</SessionToken>"
    "<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult>"
    "</AssumeRoleWithWebIdentityResponse>"
)

LOGIN = json.dumps({"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"})
"""What ``gcloud auth application-default login`` writes; it is the token of the other identities, too."""


class Proxy:
    """HTTP proxy that connects every name to one port, and keeps the names."""

    def __init__(self, target: int) -> None:
        self.names: list[str] = []
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self._target)) as server:
            head = b""
            while b"\r\n\r\n" not in head:
                head += client.recv(4096)
            self.names.append(head.split()[1].decode())
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


class Internet:
    """All servers in one: it issues tokens by POST, and has an object under every other path."""

    def __init__(self) -> None:
        self.signatures: list[str] = []
        self.objects: list[str] = []

    def __call__(self, method: str, path: str, headers: Mapping[str, str]) -> Reply:
        if method == "POST":
            return Reply(body=(ROLE if "AssumeRole" in path else TOKEN).encode())
        self.signatures.append(headers.get("authorization", ""))
        self.objects.append(path)
        return Reply(body=b"x", headers=HEADERS)


@contextmanager
def internet(folder: Path) -> Iterator[tuple[Internet, Proxy, NetworkSettings]]:
    authority, servers = Authority(folder, "company-ca"), Internet()
    with scripted_store(servers, tls=authority.issue(*HOSTS, VIRTUAL_HOST)) as endpoint:
        proxy = Proxy(urlsplit(endpoint).port or 0)
        network = NetworkSettings(ProxyServer(f"http://127.0.0.1:{proxy.port}"), ca_bundle=(authority.certificate,))
        yield servers, proxy, network
        proxy.close()


def _service_account() -> str:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return json.dumps({"client_email": "models@project.iam", "private_key": pem, "private_key_id": "1"})


PRINCIPAL = {"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant"}
ACCOUNT = {"AZURE_STORAGE_ACCOUNT_NAME": "acme"}
KEYS = {"AWS_REGION": "eu-west-1", "AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "secret"}


@pytest.mark.parametrize(
    ("uri", "options", "hosts", "signature"),
    [
        ("s3://models/m", {"AWS_REGION": "eu-west-1"}, [S3], ""),
        ("s3://models/m", KEYS, [S3], "AWS4-HMAC-SHA256 Credential=AKID/"),
        ("gs://models/m", {}, [GCS], ""),
        ("gs://models/m", {"GOOGLE_SERVICE_ACCOUNT_KEY": _service_account()}, [GCS], "Bearer ey"),
        ("gs://models/m", {"GOOGLE_BEARER_TOKEN": "own-token"}, [GCS], "Bearer own-token"),
        ("az://models/m", ACCOUNT, [AZURE], ""),
        ("az://models/m", {**ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0"}, [AZURE], "SharedKey acme:"),
        ("az://models/m", {**ACCOUNT, "AZURE_STORAGE_TOKEN": "own-token"}, [AZURE], "Bearer own-token"),
        (
            "az://models/m",
            {**ACCOUNT, **PRINCIPAL, "AZURE_CLIENT_SECRET": "secret"},
            [AZURE_TOKENS, AZURE],
            "Bearer a-token",
        ),
    ],
)
def test_credentials(tmp_path: Path, uri: str, options: Mapping[str, str], hosts: list[str], signature: str) -> None:
    with internet(tmp_path) as (servers, proxy, network):
        assert ObjectReader(Credentials(options=options), network, environ={}).info(uri).size == 1
    assert proxy.names == [f"{host}:443" for host in hosts]
    assert servers.signatures[-1].startswith(signature)
    assert bool(servers.signatures[-1]) == bool(signature)


@pytest.mark.parametrize(
    ("uri", "environ", "hosts", "signature"),
    [
        (
            "s3://models/m",
            {
                "AWS_REGION": "eu-west-1",
                "AWS_WEB_IDENTITY_TOKEN_FILE": "TOKEN",
                "AWS_ROLE_ARN": "arn:aws:iam::1:role/m",
            },
            [STS, S3],
            "AWS4-HMAC-SHA256 Credential=ASIAROLE/",
        ),
        ("gs://models/m", {"GOOGLE_APPLICATION_CREDENTIALS": "TOKEN"}, [GOOGLE_TOKENS, GCS], "Bearer a-token"),
        (
            "az://models/m",
            {**ACCOUNT, **PRINCIPAL, "AZURE_FEDERATED_TOKEN_FILE": "TOKEN"},
            [AZURE_TOKENS, AZURE],
            "Bearer a-token",
        ),
    ],
)
def test_identities(tmp_path: Path, uri: str, environ: Mapping[str, str], hosts: list[str], signature: str) -> None:
    token = tmp_path / "token"
    token.write_text(LOGIN)
    environ = {name: value.replace("TOKEN", str(token)) for name, value in environ.items()}
    with internet(tmp_path) as (servers, proxy, network):
        assert ObjectReader(Credentials(), network, environ=environ).info(uri).size == 1
    assert proxy.names == [f"{host}:443" for host in hosts]
    assert servers.signatures[-1].startswith(signature)


def test_a_server_of_tokens_is_named_in_its_errors(tmp_path: Path) -> None:
    login = tmp_path / "login"
    login.write_text(LOGIN)
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(login)}
    with internet(tmp_path) as (_, _, network):
        objects = ObjectReader(Credentials(), replace(network, ca_bundle=()), environ=environ)
        with pytest.raises(SourceError, match=r"certificate of accounts\.google\.com is not trusted"):
            objects.info("gs://models/m")


@pytest.mark.parametrize(("style", "host", "path"), [("false", S3, "/models/m"), ("true", VIRTUAL_HOST, "/m")])
def test_the_bucket_in_the_path_or_the_host_name(tmp_path: Path, style: str, host: str, path: str) -> None:
    options = {**KEYS, "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": style}
    with internet(tmp_path) as (servers, proxy, network):
        ObjectReader(Credentials(options=options), network, environ={}).info("s3://models/m")
    assert (proxy.names, servers.objects) == ([f"{host}:443"], [path])


def test_the_page_lists_the_hosts() -> None:
    text = PAGE.read_text()
    for host in HOSTS:
        assert f"`{host.replace('eu-west-1', 'REGION').replace('acme', 'ACCOUNT')}`" in text
