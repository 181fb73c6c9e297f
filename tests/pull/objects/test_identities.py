"""Identities of a pod or machine: each is fetched from a scripted server of its provider, and signs a request."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from corral_core.base.errors import SourceError
from corral_server.pull.credentials import NO_CREDENTIALS, Credentials
from corral_server.pull.http.settings import NetworkSettings
from corral_server.pull.objects.reader import ObjectReader
from tests.pull.objects.scripted_store import HEADERS, Reply, scripted_store
from tests.support.authority import Authority, KeyPair

EXPIRY = "2099-01-01T00:00:00Z"
KEYS = {"AccessKeyId": "ASIAROLE", "SecretAccessKey": "secret", "Expiration": EXPIRY, "Code": "Success"}


@dataclass
class Provider:
    """Server that is an object store and the server of identities; it records what it receives."""

    endpoint: str = ""
    paths: list[str] = field(default_factory=list)
    signatures: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    replies: dict[str, bytes] = field(default_factory=dict)

    def __call__(self, method: str, path: str, headers: Mapping[str, str]) -> Reply:
        self.paths.append(f"{method} {path}")
        for prefix, body in self.replies.items():
            if path.startswith(prefix):
                self.tokens.append(headers.get("authorization", ""))
                return Reply(body=body, headers={"Content-Type": "application/json"})
        self.signatures.append(headers.get("authorization", ""))
        self.tokens.append(headers.get("x-amz-security-token", ""))
        return Reply(body=b"x", headers=HEADERS)


@contextmanager
def provider(replies: Mapping[str, object], *, tls: KeyPair | None = None) -> Iterator[Provider]:
    made = Provider()
    made.replies = {
        path: (reply if isinstance(reply, str) else json.dumps(reply)).encode() for path, reply in replies.items()
    }
    with scripted_store(made, tls=tls) as endpoint:
        made.endpoint = endpoint
        yield made


def info(uri: str, environ: Mapping[str, str], *, credentials: Credentials = NO_CREDENTIALS) -> None:
    assert ObjectReader(credentials, NetworkSettings(), environ=environ).info(uri).size == 1


def test_container_credentials_of_eks(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("pod-token")
    with provider({"/v1/credentials": {**KEYS, "Token": "session"}}) as server:
        environ = {
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{server.endpoint}/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": str(token),
        }
        info("s3://models/m.gguf", environ)
    assert "pod-token" in server.tokens
    assert "session" in server.tokens
    assert "Credential=ASIAROLE/" in server.signatures[-1]


def test_the_metadata_server_of_aws() -> None:
    replies = {
        "/latest/api/token": "imds-token",
        "/latest/meta-data/iam/security-credentials/node": {**KEYS, "Token": "session"},
        "/latest/meta-data/iam/security-credentials/": "node",
    }
    with provider(replies) as server:
        environ = {"AWS_ENDPOINT_URL": server.endpoint, "AWS_METADATA_ENDPOINT": server.endpoint}
        info("s3://models/m.gguf", environ)
    assert "session" in server.tokens
    assert "Credential=ASIAROLE/" in server.signatures[-1]


def test_the_web_identity_of_aws(tmp_path: Path) -> None:
    """The server of the tokens is reached by TLS alone, with the authorities of the network settings."""
    token = tmp_path / "token"
    token.write_text("web-identity")
    answer = (
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>"
        f"<SessionToken>session</SessionToken><SecretAccessKey>secret</SecretAccessKey><Expiration>{EXPIRY}</Expiration>"
        "<AccessKeyId>ASIAROLE</AccessKeyId></Credentials></AssumeRoleWithWebIdentityResult>"
        "</AssumeRoleWithWebIdentityResponse>"
    )
    authority = Authority(tmp_path, "company-ca")
    with provider({"/sts": answer}, tls=authority.issue("localhost")) as server:
        environ = {
            "AWS_ENDPOINT_URL": server.endpoint,
            "AWS_ENDPOINT_URL_STS": f"{server.endpoint}/sts",
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
            "AWS_ROLE_ARN": "arn:aws:iam::1:role/models",
        }
        network = NetworkSettings(ca_bundle=(authority.certificate,))
        ObjectReader(NO_CREDENTIALS, network, environ=environ).info("s3://models/m.gguf")
    query = parse_qs(server.paths[0].partition("?")[2])
    assert query["WebIdentityToken"] == ["web-identity"]
    assert query["RoleArn"] == ["arn:aws:iam::1:role/models"]
    assert "Credential=ASIAROLE/" in server.signatures[-1]


def test_the_metadata_server_of_google(monkeypatch: pytest.MonkeyPatch) -> None:
    token = {"access_token": "gke-token", "expires_in": 3600, "token_type": "Bearer"}
    with provider({"/computeMetadata/v1/": token}) as server:
        host = server.endpoint.removeprefix("http://")
        monkeypatch.setenv("GCE_METADATA_HOST", host)  # read by obstore itself
        info("gs://models/m.gguf", {"GOOGLE_BASE_URL": server.endpoint, "GCE_METADATA_HOST": host})
    assert server.signatures[-1] == "Bearer gke-token"


def test_the_workload_identity_of_azure(tmp_path: Path) -> None:
    federated = tmp_path / "token"
    federated.write_text("federated")
    token = {"access_token": "azure-token", "expires_in": 3600, "token_type": "Bearer"}
    with provider({"/tenant/oauth2/": token}) as server:
        environ = {
            "AZURE_STORAGE_ACCOUNT_NAME": "acme",
            "AZURE_STORAGE_ENDPOINT": server.endpoint,
            "AZURE_FEDERATED_TOKEN_FILE": str(federated),
            "AZURE_CLIENT_ID": "client",
            "AZURE_TENANT_ID": "tenant",
            "AZURE_AUTHORITY_HOST": server.endpoint,
        }
        info("az://models/m.gguf", environ)
    assert server.signatures[-1] == "Bearer azure-token"


def test_the_managed_identity_of_azure() -> None:
    token = {"access_token": "azure-token", "expires_on": "4070908800", "token_type": "Bearer", "resource": "x"}
    with provider({"/metadata/identity": token}) as server:
        environ = {
            "AZURE_STORAGE_ACCOUNT_NAME": "acme",
            "AZURE_STORAGE_ENDPOINT": server.endpoint,
            "AZURE_MSI_ENDPOINT": f"{server.endpoint}/metadata/identity/oauth2/token",
        }
        info("az://models/m.gguf", environ)
    assert server.signatures[-1] == "Bearer azure-token"


def test_no_identity_is_sent_to_a_server_of_the_credentials(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("web-identity")
    with provider({}) as server:
        environ = {
            "AZURE_STORAGE_ACCOUNT_NAME": "acme",
            "AZURE_FEDERATED_TOKEN_FILE": str(token),
            "AWS_WEB_IDENTITY_TOKEN_FILE": str(token),
            "GCE_METADATA_HOST": server.endpoint.removeprefix("http://"),
        }
        names = {"s3": "AWS_ENDPOINT_URL", "gs": "GOOGLE_BASE_URL", "az": "AZURE_STORAGE_ENDPOINT"}
        for scheme, name in names.items():
            info(f"{scheme}://models/m.gguf", environ, credentials=Credentials(options={name: server.endpoint}))
    assert set(server.signatures) == {""}


def test_an_identity_that_cannot_be_read(tmp_path: Path) -> None:
    environ = {"GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "missing.json")}
    with pytest.raises(SourceError, match="is not valid"):
        ObjectReader(NO_CREDENTIALS, NetworkSettings(), environ=environ).info("gs://models/m.gguf")
