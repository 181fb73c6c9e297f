"""Settings of object stores: endpoint, signature and connection, from credentials and network settings.

- Keys come from the credentials of the source. Without keys, an *identity* of the pod or machine signs the requests
  if the provider's own variables for it are set. Without both, requests are not signed: public buckets can be read.
- Identities are read from the environment of the process alone. In a Secret, which a Model's author writes,
  AWS_WEB_IDENTITY_TOKEN_FILE and its like could name any file of the pod.
- An identity is not used with an endpoint from the credentials, which would receive its token.
- obstore reads the environment of the process too, so everything that selects an endpoint, a signature or a proxy is
  passed explicitly, also where it is the default.
- Plain HTTP is used if the endpoint is written as ``http://``, or if its host is listed as one without TLS.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from base64 import b64decode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote, urlsplit

from corral_core.base.errors import SourceError
from corral_server.pull.http.addresses import is_forbidden, is_forbidden_name, literal_address
from corral_server.pull.http.settings import NetworkSettings
from corral_server.pull.http.urls import HttpUrl, parse_url

Provider = Literal["s3", "gs", "az"]
Variables = Mapping[str, str]

REQUEST_TIMEOUT: Final = "7days"
"""Maximum time of one response with its body. A stalled response ends much earlier, by ``stall_timeout``."""

_METADATA_HOSTS: Final = (
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "fd00:ec2::254",
    "metadata.google.internal",
)
"""Servers of identities, which are never reached through the proxy."""
_ALL_HOSTS: Final = "*,0.0.0.0/0,::/0"
"""Excludes every host from the proxy; ``*`` alone does not exclude addresses (reqwest's ``NoProxy``)."""
_UNUSED_PROXY: Final = "http://127.0.0.1:9"
"""Given with ``_ALL_HOSTS`` for a direct connection: without a proxy, obstore would use that of the environment."""
_FORBIDDEN: Final = "of the object store has a link-local or reserved address, to which nothing is sent"
_REGION: Final = re.compile(r"[a-z0-9-]{1,64}")
_ACCOUNT: Final = re.compile(r"[a-z0-9-]{3,63}")


class Signature(StrEnum):
    """What signs the requests."""

    NONE = "no credentials"
    KEYS = "the credentials"
    IDENTITY = "the identity of the environment"


@dataclass(frozen=True, slots=True)
class AccessKey:
    """Access key of S3."""

    id: str
    secret: str = field(repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """``config`` and ``client`` are the options of an obstore store, without the ``access_key`` of S3."""

    provider: Provider
    bucket: str
    endpoint: HttpUrl
    signature: Signature
    config: Mapping[str, str | bool] = field(repr=False)
    client: Mapping[str, str | bool] = field(repr=False)
    access_key: AccessKey | None = field(default=None, repr=False)

    @property
    def proxied(self) -> bool:
        """Return whether the endpoint is reached by a proxy."""
        return self.client.get("proxy_url") != _UNUSED_PROXY


@dataclass(frozen=True, slots=True)
class _Signed:
    """Signature with its part of the config."""

    signature: Signature
    config: Mapping[str, str | bool] = field(default_factory=dict, repr=False)
    access_key: AccessKey | None = field(default=None, repr=False)


_UNSIGNED: Final = _Signed(Signature.NONE, {"skip_signature": True})


def store_settings(
    provider: Provider, bucket: str, *, options: Variables, network: NetworkSettings, environ: Variables
) -> StoreSettings:
    """Return the settings of a bucket or container; ``options`` are those of the credentials. Raises SourceError."""
    given = {name: value.strip() for name, value in options.items() if value.strip()}
    own_endpoint = _first(given, _ENDPOINTS[provider])
    shared_endpoint = _first(environ, _ENDPOINTS[provider])
    signed = _SIGNATURES[provider](given)
    if signed is None:
        trusted = own_endpoint in ("", shared_endpoint)
        signed = (_IDENTITIES[provider](environ) if trusted else None) or _UNSIGNED
    place, default = _PLACES[provider](given, environ)
    endpoint = _endpoint(own_endpoint or shared_endpoint or default, network)
    config: dict[str, str | bool] = {"skip_signature": False, **place, **signed.config}
    if provider == "s3" and _is_true(_first(given, ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST",))):
        endpoint = parse_url(endpoint.full.replace("://", f"://{bucket}.", 1))
        config["virtual_hosted_style_request"] = True
    config[_ENDPOINT_KEYS[provider]] = endpoint.full.rstrip("/")
    client = _client(endpoint, network, environ)
    if own_endpoint and client["proxy_url"] == _UNUSED_PROXY:
        _check_addresses(endpoint)
    return StoreSettings(
        provider,
        bucket,
        endpoint,
        signature=signed.signature,
        config=config,
        client=client,
        access_key=signed.access_key,
    )


def _endpoint(text: str, network: NetworkSettings) -> HttpUrl:
    """Parse an endpoint and check its address; a name must not be that of a metadata server."""
    if "://" not in text:
        guess = parse_url(f"https://{text}")
        text = f"{'http' if network.is_plain(guess.host, guess.port) else 'https'}://{text}"
    endpoint = parse_url(text)
    if endpoint.has_query:
        raise SourceError(f"the endpoint {endpoint} of the object store must not have parameters")
    address = literal_address(endpoint.host)
    if is_forbidden_name(endpoint.host) or (address is not None and is_forbidden(address)):
        raise SourceError(f"the endpoint {endpoint} {_FORBIDDEN}")
    return endpoint


def _check_addresses(endpoint: HttpUrl) -> None:
    """Check what the name of an endpoint resolves to. obstore resolves it again, so this is no complete protection."""
    try:
        found = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except OSError:
        return  # the request fails with a better error
    if any(is_forbidden(ipaddress.ip_address(str(entry[4][0]).partition("%")[0])) for entry in found):
        raise SourceError(f"the endpoint {endpoint} {_FORBIDDEN}")


def _client(endpoint: HttpUrl, network: NetworkSettings, environ: Variables) -> dict[str, str | bool]:
    """Return obstore's ClientConfig: timeouts, authorities and the proxy or none."""
    client: dict[str, str | bool] = {
        "allow_http": endpoint.scheme == "http",
        "connect_timeout": f"{network.connect_timeout:g}s",
        "read_timeout": f"{network.stall_timeout:g}s",
        "timeout": REQUEST_TIMEOUT,
        "user_agent": "corral",
        "proxy_url": _UNUSED_PROXY,
        "proxy_excludes": _ALL_HOSTS,
    }
    authorities = _authorities(network.ca_bundle)
    if authorities:
        client["root_certificate"] = authorities
    proxy = network.proxy_for(endpoint.scheme, endpoint.host, endpoint.port)
    if proxy is not None:
        client["proxy_url"] = _with_credentials(proxy.url, proxy.authorization)
        client["proxy_excludes"] = ",".join((*_METADATA_HOSTS, *_identity_hosts(environ)))
        if authorities:
            client["proxy_ca_certificate"] = authorities
    return client


def _authorities(files: tuple[Path, ...]) -> str:
    """Return the certificates of the files, in PEM."""
    try:
        return "\n".join(path.read_text(encoding="ascii", errors="replace") for path in files)
    except OSError as error:
        raise SourceError(f"the CA bundle {error.filename} cannot be read: {error.strerror}") from None


def _with_credentials(url: str, authorization: str) -> str:
    """Return the proxy's URL with the user and password of a Proxy-Authorization header."""
    if not authorization:
        return url
    user, _, password = b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
    return url.replace("://", f"://{quote(user, safe='')}:{quote(password, safe='')}@", 1)


def _identity_hosts(environ: Variables) -> list[str]:
    """Return the hosts of the identity servers that the environment names."""
    values = [environ.get(name, "") for name in (*_METADATA_SERVERS, "AWS_CONTAINER_CREDENTIALS_FULL_URI")]
    hosts = (urlsplit(value if "://" in value else f"//{value}").hostname for value in values if value)
    return [host for host in hosts if host]


# S3

_AWS_METADATA: Final = ("AWS_METADATA_ENDPOINT", "AWS_EC2_METADATA_SERVICE_ENDPOINT")
_AZURE_METADATA: Final = ("AZURE_MSI_ENDPOINT", "AZURE_IDENTITY_ENDPOINT", "IDENTITY_ENDPOINT")
_METADATA_SERVERS: Final = (*_AWS_METADATA, *_AZURE_METADATA, "GCE_METADATA_HOST")


def _s3_place(options: Variables, environ: Variables) -> tuple[dict[str, str | bool], str]:
    """Return the config that does not depend on the signature, and the provider's endpoint."""
    names = ("AWS_REGION", "AWS_DEFAULT_REGION")
    region = _first(options, names) or _first(environ, names) or "us-east-1"
    if not _REGION.fullmatch(region):
        raise SourceError("AWS_REGION is not the name of a region, such as eu-west-1")
    payer = _is_true(_first(options, ("AWS_REQUEST_PAYER",)))
    config: dict[str, str | bool] = {"region": region, "virtual_hosted_style_request": False, "request_payer": payer}
    return config, f"https://s3.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"


def _s3_signature(options: Variables) -> _Signed | None:
    if _is_true(_first(options, ("AWS_SKIP_SIGNATURE",))):
        return _UNSIGNED
    key, secret = _pair(options, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    if not key:
        return None
    token = _first(options, ("AWS_SESSION_TOKEN", "AWS_TOKEN"))
    return _Signed(Signature.KEYS, access_key=AccessKey(key, secret, token))


def _s3_identity(environ: Variables) -> _Signed | None:
    """Web identity (EKS), container credentials (EKS Pod Identity, ECS) or the metadata server of the machine."""
    config = _renamed(
        environ,
        {
            "AWS_WEB_IDENTITY_TOKEN_FILE": "web_identity_token_file",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "container_credentials_full_uri",
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "container_credentials_relative_uri",
        },
    )
    if metadata := _first(environ, _AWS_METADATA):
        config["metadata_endpoint"] = metadata
    if not config:
        return None
    config |= _renamed(
        environ,
        {
            "AWS_ROLE_ARN": "role_arn",
            "AWS_ROLE_SESSION_NAME": "role_session_name",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": "container_authorization_token_file",
            "AWS_ENDPOINT_URL_STS": "aws_endpoint_url_sts",
        },
    )
    return _Signed(Signature.IDENTITY, config)


# Google Cloud Storage


def _gs_place(options: Variables, environ: Variables) -> tuple[dict[str, str | bool], str]:
    del options, environ
    return {}, "https://storage.googleapis.com"


def _gs_signature(options: Variables) -> _Signed | None:
    if _is_true(_first(options, ("GOOGLE_SKIP_SIGNATURE",))):
        return _UNSIGNED
    if token := _first(options, ("GOOGLE_BEARER_TOKEN",)):
        return _Signed(Signature.KEYS, {"bearer_token": token})
    key = _first(options, ("GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_SERVICE_ACCOUNT"))
    return _Signed(Signature.KEYS, {"service_account_key": key}) if key.startswith("{") else None


def _gs_identity(environ: Variables) -> _Signed | None:
    """A key file, the application default credentials of gcloud, or the metadata server (GKE)."""
    if path := _first(environ, ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH")):
        return _Signed(Signature.IDENTITY, {"service_account": path})
    path = environ.get("GOOGLE_APPLICATION_CREDENTIALS", "")
    default = Path(environ.get("HOME") or "/nonexistent") / ".config/gcloud/application_default_credentials.json"
    if path or default.is_file():
        return _Signed(Signature.IDENTITY, {"application_credentials": path or str(default)})
    return _Signed(Signature.IDENTITY) if environ.get("GCE_METADATA_HOST") else None


# Azure Blob Storage

_AZURE_PRINCIPAL: Final = {
    "AZURE_CLIENT_ID": "client_id",
    "AZURE_TENANT_ID": "tenant_id",
    "AZURE_AUTHORITY_HOST": "authority_host",
}


def _az_place(options: Variables, environ: Variables) -> tuple[dict[str, str | bool], str]:
    names = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT")
    account = _first(options, names) or _first(environ, names)
    if not account:
        raise SourceError(
            "an az:// source does not name its storage account: set AZURE_STORAGE_ACCOUNT_NAME in the credentials, "
            "also for a public container"
        )
    if not _ACCOUNT.fullmatch(account):
        raise SourceError("AZURE_STORAGE_ACCOUNT_NAME is not the name of a storage account")
    return {"account_name": account, "use_emulator": False}, f"https://{account}.blob.core.windows.net"


def _az_signature(options: Variables) -> _Signed | None:
    if _is_true(_first(options, ("AZURE_SKIP_SIGNATURE",))):
        return _UNSIGNED
    if key := _first(options, ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY")):
        return _Signed(Signature.KEYS, {"account_key": key, "credential_type": "access_key"})
    if token := _first(options, ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY")):
        return _Signed(Signature.KEYS, {"sas_key": token.removeprefix("?"), "credential_type": "sas_token"})
    if token := _first(options, ("AZURE_STORAGE_TOKEN",)):
        return _Signed(Signature.KEYS, {"token": token, "credential_type": "bearer_token"})
    if secret := options.get("AZURE_CLIENT_SECRET"):
        config = _renamed(options, _AZURE_PRINCIPAL)
        if not {"client_id", "tenant_id"} <= config.keys():
            raise SourceError("AZURE_CLIENT_SECRET needs AZURE_CLIENT_ID and AZURE_TENANT_ID")
        return _Signed(Signature.KEYS, {**config, "client_secret": secret, "credential_type": "client_secret"})
    return None


def _az_identity(environ: Variables) -> _Signed | None:
    """Workload identity (AKS), a managed identity, or the ``az`` command."""
    config = _renamed(environ, _AZURE_PRINCIPAL)
    if token := environ.get("AZURE_FEDERATED_TOKEN_FILE"):
        config |= {"federated_token_file": token, "credential_type": "workload_identity"}
    elif endpoint := _first(environ, _AZURE_METADATA):
        config |= {"msi_endpoint": endpoint, "credential_type": "managed_identity"}
    elif _is_true(environ.get("AZURE_USE_AZURE_CLI", "")):
        config |= {"use_azure_cli": True, "credential_type": "azure_cli"}
    else:
        return None
    return _Signed(Signature.IDENTITY, config)


_ENDPOINTS: Final[Mapping[Provider, tuple[str, ...]]] = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
}
_ENDPOINT_KEYS: Final[Mapping[Provider, str]] = {"s3": "aws_endpoint_url_s3", "gs": "base_url", "az": "endpoint"}
_PLACES: Final[Mapping[Provider, Callable[[Variables, Variables], tuple[dict[str, str | bool], str]]]] = {
    "s3": _s3_place,
    "gs": _gs_place,
    "az": _az_place,
}
_SIGNATURES: Final[Mapping[Provider, Callable[[Variables], _Signed | None]]] = {
    "s3": _s3_signature,
    "gs": _gs_signature,
    "az": _az_signature,
}
_IDENTITIES: Final[Mapping[Provider, Callable[[Variables], _Signed | None]]] = {
    "s3": _s3_identity,
    "gs": _gs_identity,
    "az": _az_identity,
}


def _first(variables: Variables, names: tuple[str, ...]) -> str:
    """Return the value of the first variable that is set, or an empty string."""
    return next((value for name in names if (value := variables.get(name, "").strip())), "")


def _pair(options: Variables, first: str, second: str) -> tuple[str, str]:
    """Return two variables that belong together. Raises SourceError if only one is set."""
    values = options.get(first, ""), options.get(second, "")
    if any(values) and not all(values):
        there, missing = (first, second) if values[0] else (second, first)
        raise SourceError(f"the credentials have {there} but not {missing}; set both, or none for a public bucket")
    return values


def _renamed(variables: Variables, names: Mapping[str, str]) -> dict[str, str | bool]:
    return {key: variables[name].strip() for name, key in names.items() if variables.get(name, "").strip()}


def _is_true(text: str) -> bool:
    return text.lower() in ("1", "true", "yes", "on", "requester")
