"""Settings of object stores from credentials, network settings and environment."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from corral_core.base.errors import SourceError
from corral_server.pull.http.settings import NetworkSettings, network_settings
from corral_server.pull.objects.settings import AccessKey, Provider, Signature, StoreSettings, store_settings

KEYS = {"AWS_ACCESS_KEY_ID": "AKID", "AWS_SECRET_ACCESS_KEY": "private"}
WEB_IDENTITY = {"AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/token", "AWS_ROLE_ARN": "arn:aws:iam::1:role/r"}
LOGIN = "user:proxypassword"
ACCOUNT = {"AZURE_STORAGE_ACCOUNT_NAME": "acme"}


def settings(
    provider: Provider = "s3",
    options: Mapping[str, str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    network: NetworkSettings | None = None,
) -> StoreSettings:
    return store_settings(
        provider, "models", options=options or {}, network=network or NetworkSettings(), environ=environ or {}
    )


@pytest.mark.parametrize(
    ("provider", "options", "endpoint"),
    [
        ("s3", {}, "https://s3.us-east-1.amazonaws.com/"),
        ("s3", {"AWS_REGION": "eu-west-1"}, "https://s3.eu-west-1.amazonaws.com/"),
        ("s3", {"AWS_DEFAULT_REGION": "cn-north-1"}, "https://s3.cn-north-1.amazonaws.com.cn/"),
        ("s3", {"AWS_ENDPOINT_URL": "https://a:9000", "AWS_ENDPOINT_URL_S3": "https://b:9000"}, "https://b:9000/"),
        ("s3", {"AWS_ENDPOINT_URL": "minio.example.com"}, "https://minio.example.com/"),
        ("s3", {"AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"}, "https://models.s3.us-east-1.amazonaws.com/"),
        ("gs", {}, "https://storage.googleapis.com/"),
        ("gs", {"GOOGLE_BASE_URL": "http://127.0.0.1:4443"}, "http://127.0.0.1:4443/"),
        ("az", ACCOUNT, "https://acme.blob.core.windows.net/"),
        ("az", {**ACCOUNT, "AZURE_STORAGE_ENDPOINT": "http://127.0.0.1:1/acme"}, "http://127.0.0.1:1/acme"),
    ],
)
def test_the_endpoint(provider: Provider, options: Mapping[str, str], endpoint: str) -> None:
    found = settings(provider, options)
    assert found.endpoint.full == endpoint
    assert endpoint.rstrip("/") in found.config.values()
    assert found.client["allow_http"] is endpoint.startswith("http://")


def test_an_endpoint_without_a_scheme_is_plain_for_a_host_that_is_listed_as_such() -> None:
    options = {"AWS_ENDPOINT_URL": "minio.storage.svc:9000"}
    assert settings(options=options).endpoint.scheme == "https"
    plain = NetworkSettings(plain_http_hosts=frozenset({"minio.storage.svc:9000"}))
    assert settings(options=options, network=plain).endpoint.full == "http://minio.storage.svc:9000/"


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://169.254.169.254",
        "http://[fe80::1]:80",
        "http://2852039166",
        "http://metadata.google.internal",
        "https://100.100.100.200",
    ],
)
def test_no_request_is_sent_to_a_metadata_server(endpoint: str) -> None:
    with pytest.raises(SourceError, match="link-local or reserved"):
        settings(options={"AWS_ENDPOINT_URL": endpoint})


def test_no_request_is_sent_to_a_name_of_a_metadata_server(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("169.254.169.254", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    with pytest.raises(SourceError, match="link-local or reserved"):
        settings(options={"AWS_ENDPOINT_URL": "http://innocent.example.com"})


@pytest.mark.parametrize("endpoint", ["ftp://host", f"https://{LOGIN}@host", "https://host?x=1", "https://"])
def test_an_invalid_endpoint_is_an_error(endpoint: str) -> None:
    with pytest.raises(SourceError) as caught:
        settings(options={"AWS_ENDPOINT_URL": endpoint})
    assert LOGIN not in str(caught.value)


@pytest.mark.parametrize(("provider", "options"), [("s3", {}), ("gs", {}), ("az", ACCOUNT)])
def test_requests_without_keys_are_not_signed(provider: Provider, options: Mapping[str, str]) -> None:
    found = settings(provider, options)
    assert found.signature is Signature.NONE
    assert found.config["skip_signature"] is True


def test_an_access_key_has_precedence_over_an_identity() -> None:
    found = settings(options={**KEYS, "AWS_SESSION_TOKEN": "session"}, environ=WEB_IDENTITY)
    assert found.signature is Signature.KEYS
    assert found.access_key == AccessKey("AKID", "private", "session")
    assert found.config["skip_signature"] is False
    assert "web_identity_token_file" not in found.config


@pytest.mark.parametrize("missing", KEYS)
def test_half_of_a_key_pair_is_an_error(missing: str) -> None:
    with pytest.raises(SourceError, match=f"not {missing}"):
        settings(options={name: value for name, value in KEYS.items() if name != missing})


@pytest.mark.parametrize(
    ("provider", "environ", "config"),
    [
        ("s3", WEB_IDENTITY, {"web_identity_token_file": "/var/run/token", "role_arn": "arn:aws:iam::1:role/r"}),
        (
            "s3",
            {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1/credentials"},
            {"container_credentials_full_uri": "http://169.254.170.23/v1/credentials"},
        ),
        ("s3", {"AWS_METADATA_ENDPOINT": "http://169.254.169.254"}, {"metadata_endpoint": "http://169.254.169.254"}),
        ("gs", {"GOOGLE_APPLICATION_CREDENTIALS": "/key.json"}, {"application_credentials": "/key.json"}),
        ("gs", {"GOOGLE_SERVICE_ACCOUNT": "/key.json"}, {"service_account": "/key.json"}),
        ("gs", {"GCE_METADATA_HOST": "metadata.google.internal"}, {}),
        (
            "az",
            {**ACCOUNT, "AZURE_FEDERATED_TOKEN_FILE": "/token", "AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": "t"},
            {"federated_token_file": "/token", "client_id": "c", "tenant_id": "t"},
        ),
        ("az", {**ACCOUNT, "IDENTITY_ENDPOINT": "http://169.254.169.254/x"}, {"credential_type": "managed_identity"}),
        ("az", {**ACCOUNT, "AZURE_USE_AZURE_CLI": "true"}, {"credential_type": "azure_cli"}),
    ],
)
def test_an_identity_of_the_environment(
    provider: Provider, environ: Mapping[str, str], config: Mapping[str, str]
) -> None:
    found = settings(provider, environ=environ)
    assert found.signature is Signature.IDENTITY
    assert config.items() <= found.config.items()
    assert found.config["skip_signature"] is False


def test_gclouds_login_is_an_identity(tmp_path: Path) -> None:
    login = tmp_path / ".config/gcloud/application_default_credentials.json"
    environ = {"HOME": str(tmp_path)}
    assert settings("gs", environ=environ).signature is Signature.NONE
    login.parent.mkdir(parents=True)
    login.write_text("{}")
    assert settings("gs", environ=environ).config["application_credentials"] == str(login)


@pytest.mark.parametrize(
    ("provider", "options"),
    [
        ("s3", {**WEB_IDENTITY, "AWS_ENDPOINT_URL_STS": "https://evil.example.com"}),
        ("s3", {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://evil.example.com"}),
        ("gs", {"GOOGLE_SERVICE_ACCOUNT": "/etc/passwd"}),
        ("gs", {"GOOGLE_APPLICATION_CREDENTIALS": "/etc/passwd"}),
        ("az", {**ACCOUNT, "AZURE_FEDERATED_TOKEN_FILE": "/token", "AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": "t"}),
    ],
)
def test_credentials_cannot_name_a_file_or_server_of_an_identity(
    provider: Provider, options: Mapping[str, str]
) -> None:
    found = settings(provider, options)
    assert found.signature is Signature.NONE
    assert not {"/etc/passwd", "/token", "https://evil.example.com"}.intersection(map(str, found.config.values()))


@pytest.mark.parametrize(
    ("provider", "environ", "option"),
    [
        ("s3", WEB_IDENTITY, "AWS_ENDPOINT_URL"),
        ("gs", {"GCE_METADATA_HOST": "metadata.google.internal"}, "GOOGLE_BASE_URL"),
        ("az", {**ACCOUNT, "AZURE_FEDERATED_TOKEN_FILE": "/token"}, "AZURE_STORAGE_ENDPOINT"),
    ],
)
def test_an_identity_signs_nothing_for_an_endpoint_of_the_credentials(
    provider: Provider, environ: Mapping[str, str], option: str
) -> None:
    endpoint = {option: "https://127.0.0.1:9"}
    assert settings(provider, endpoint, environ=environ).signature is Signature.NONE
    assert settings(provider, environ={**environ, **endpoint}).signature is Signature.IDENTITY


def test_an_azure_source_needs_the_account() -> None:
    with pytest.raises(SourceError, match="AZURE_STORAGE_ACCOUNT_NAME"):
        settings("az")


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0"}, "access_key"),
        ({"AZURE_STORAGE_SAS_TOKEN": "?sv=1&sig=abc"}, "sas_token"),
        ({"AZURE_STORAGE_TOKEN": "token"}, "bearer_token"),
        ({"AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": "t", "AZURE_CLIENT_SECRET": "s"}, "client_secret"),
    ],
)
def test_azures_kinds_of_credentials(options: Mapping[str, str], kind: str) -> None:
    found = settings("az", {**ACCOUNT, **options})
    assert found.signature is Signature.KEYS
    assert found.config["credential_type"] == kind
    assert found.config.get("sas_key", "sv=1&sig=abc") == "sv=1&sig=abc"


def test_the_environments_proxy_is_not_used_unless_the_settings_have_it() -> None:
    found = settings()
    assert found.client["proxy_url"] == "http://127.0.0.1:9"
    assert found.client["proxy_excludes"] == "*,0.0.0.0/0,::/0"


def test_the_proxy_and_its_exceptions(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("authority")
    network = network_settings(
        {
            "HTTPS_PROXY": "http://us%40er:pass:word@proxy.example.com:3128",
            "NO_PROXY": ".storage.svc",
            "CORRAL_CA_BUNDLE": str(bundle),
        }
    )
    found = settings(network=network, environ={"AWS_METADATA_ENDPOINT": "http://10.9.8.7:80/x"})
    assert found.client["proxy_url"] == f"http://{'us%40er:pass%3Aword'}@proxy.example.com:3128"
    assert {"169.254.169.254", "10.9.8.7"} <= set(str(found.client["proxy_excludes"]).split(","))
    assert found.client["root_certificate"] == found.client["proxy_ca_certificate"] == "authority"
    for direct in ("https://minio.storage.svc", "http://minio.example.com"):
        options = {"AWS_ENDPOINT_URL": direct}
        assert settings(options=options, network=network).client["proxy_url"] == "http://127.0.0.1:9"


def test_a_missing_ca_bundle_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"missing\.pem cannot be read"):
        settings(network=NetworkSettings(ca_bundle=(tmp_path / "missing.pem",)))


def test_no_secret_is_shown() -> None:
    network = network_settings({"HTTPS_PROXY": f"http://{LOGIN}@proxy.example.com:3128"})
    shown = [
        repr(settings(options={**KEYS, "AWS_SESSION_TOKEN": "session"}, network=network)),
        repr(settings("az", {**ACCOUNT, "AZURE_STORAGE_SAS_TOKEN": "sig=abc"})),
        repr(settings("gs", {"GOOGLE_SERVICE_ACCOUNT_KEY": '{"private_key": "pem"}'})),
    ]
    for secret in ("private", "session", "proxypassword", "sig=abc", "pem"):
        assert not any(secret in text for text in shown)
