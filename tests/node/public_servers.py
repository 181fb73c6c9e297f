"""Servers of all source schemes under their public names, and an intercepting proxy that is the only way to them.

- The servers listen on loopback addresses of this machine, which no pod reaches. Pods have no name server; the names
  are known to the proxy alone.
- nginx has the names, with certificates of an authority that only the proxy trusts, and passes requests on to
  docker-registry, the stand-in for the hubs, versitygw, fake-gcs-server and azurite.
- squid is the proxy. It opens TLS with certificates of another authority, which pods trust only as an additional one.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.node.real_cluster import WEIGHTS
from tests.pull.servers.object_stores import (
    ACCESS_KEY,
    ACCOUNT,
    ACCOUNT_KEY,
    SECRET_KEY,
    az_server,
    gs_server,
    s3_server,
)
from tests.pull.servers.registry import DockerRegistry, docker_registry
from tests.support.authority import Authority
from tests.support.hub_repository import Repository
from tests.support.hub_server import HubServer, running_hub
from tests.support.web_servers import Squid, nginx, squid

FILE_HOST = "weights.example.com"
AUTHORITIES = "company-authorities"
"""Name of the ConfigMap with the proxy's authority."""

SOURCES: Mapping[str, Mapping[str, object]] = {
    "ollama": {"source": "ollama://smollm2:135m"},
    "hf": {"source": "hf://example/SmolLM2-GGUF:Q4_1"},
    "modelscope": {"source": "modelscope://example/SmolLM2-GGUF:Q4_1"},
    "https": {"source": f"https://{FILE_HOST}/files/{WEIGHTS}"},
    "s3": {"source": f"s3://weights/{WEIGHTS}", "sourceSecretRef": {"name": "s3-keys"}},
    "gs": {"source": f"gs://weights/{WEIGHTS}"},
    "az": {"source": f"az://weights/{WEIGHTS}", "sourceSecretRef": {"name": "az-keys"}},
    "oci": {"source": "oci://registry.example.com/library/smollm2:modelpack"},
}
"""``spec`` of a Model by scheme; all have the same weights."""

_ADDRESS = "127.0.0.43"
_REGISTRIES = ("registry.ollama.ai", "registry.example.com")
_STORAGE = "storage.googleapis.com"
_SECRETS = {
    "s3-keys": {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY},
    "az-keys": {"AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT, "AZURE_STORAGE_ACCOUNT_KEY": ACCOUNT_KEY},
}
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass(frozen=True)
class PublicServers:
    """``hosts`` are the public names, ``proxy`` the proxy's URL, ``authority`` the certificate of its authority."""

    hosts: frozenset[str]
    proxy: str
    authority: Path
    _squid: Squid

    def objects(self, namespace: str) -> list[dict[str, object]]:
        """Return what users create: the ConfigMap with the authority, and the Secrets of the object stores."""
        bundle = {"data": {"ca.crt": self.authority.read_text()}}
        secrets = {
            name: {"data": {key: b64encode(value.encode()).decode() for key, value in data.items()}}
            for name, data in _SECRETS.items()
        }
        kinds = [("ConfigMap", AUTHORITIES, bundle), *(("Secret", name, data) for name, data in secrets.items())]
        return [
            {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, **data}
            for kind, name, data in kinds
        ]

    def requests(self) -> list[tuple[str, str]]:
        """Return client address and URL of each request that the proxy has read inside of TLS."""
        lines = [line.split() for line in self._squid.access_log.read_text().splitlines()]
        return [(line[2], line[6]) for line in lines if line[6].startswith("https://")]


@contextmanager
def public_servers(folder: Path, weights: Path, *, proxy_address: str) -> Iterator[PublicServers]:
    """Run all servers with the weights, and the proxy at ``proxy_address``, until the end of the block."""
    servers, company = Authority(folder, "servers"), Authority(folder, "company")
    with ExitStack() as stack:
        backends = _start(stack, folder, weights.read_bytes())
        backends[FILE_HOST] = ""
        certificate = servers.issue(*backends)
        http = f"map $host $backend {{ {_entries(backends)} }}"
        http += f"map $host $named {{ default $host; {_STORAGE} {backends[_STORAGE]}; }}"
        pages = (
            f"location /files/ {{ alias {weights.parent}/; }}"
            "location / { proxy_pass http://$backend; proxy_set_header Host $named; proxy_http_version 1.1;"
            " proxy_buffering off; }"
        )
        stack.enter_context(nginx(folder / "nginx", pages, tls=certificate, address=_ADDRESS, port=443, http=http))
        proxy = stack.enter_context(
            squid(
                signer=company.pair,
                trusted=servers.certificate,
                tls=company.issue("proxy.test"),
                address=proxy_address,
                hosts=dict.fromkeys(backends, _ADDRESS),
            )
        )
        yield PublicServers(frozenset(backends), f"http://{proxy_address}:{proxy.port}", company.certificate, proxy)


def _start(stack: ExitStack, folder: Path, weights: bytes) -> dict[str, str]:
    """Start the servers and give them the weights; return the address of each by its public name."""
    for name in ("registry", "s3", "gs", "az"):
        (folder / name).mkdir()
    registry = stack.enter_context(docker_registry(folder / "registry"))
    _push(registry, weights)
    hub = stack.enter_context(running_hub())
    urls = {"huggingface.co": hub.url, "modelscope.cn": hub.url, "cas-bridge.xethub.hf.co": hub.content_url}
    _commit(hub, weights)
    stores = {
        "s3.us-east-1.amazonaws.com": stack.enter_context(s3_server(folder / "s3")),
        _STORAGE: stack.enter_context(gs_server(folder / "gs")),
        f"{ACCOUNT}.blob.core.windows.net": stack.enter_context(az_server(folder / "az")),
    }
    for store in stores.values():
        store.create("weights")
        store.put("weights", WEIGHTS, weights)
    urls |= {name: store.endpoint for name, store in stores.items()} | dict.fromkeys(_REGISTRIES, f"//{registry.host}")
    return {name: f"127.0.0.1:{urlsplit(url).port}" for name, url in urls.items()}


def _push(registry: DockerRegistry, weights: bytes) -> None:
    """Push the weights as Ollama and as ModelPack store them."""
    name, ollama, modelpack = "library/smollm2", "application/vnd.ollama.image.model", "application/vnd.cncf.model"
    config = registry.push_blob(name, b"{}", "application/vnd.docker.container.image.v1+json")
    layers = [registry.push_blob(name, weights, ollama)]
    registry.push_manifest(name, "135m", {"config": config, "layers": layers}, media_type=_DOCKER_MANIFEST)
    config = registry.push_blob(name, b"{}", f"{modelpack}.config.v1+json")
    layers = [registry.push_blob(name, weights, f"{modelpack}.weight.v1.raw", path=WEIGHTS)]
    fields = {"artifactType": f"{modelpack}.manifest.v1+json", "config": config, "layers": layers}
    registry.push_manifest(name, "modelpack", fields)


def _commit(hub: HubServer, weights: bytes) -> None:
    """Put the weights into a repository of both hubs, whose links have the public names from then on."""
    repository = hub.add(Repository("example/SmolLM2-GGUF"))
    for branch in ("main", "master"):
        repository.commit({WEIGHTS: weights}, branch=branch)
    hub.url, hub.content_url = "https://huggingface.co", "https://cas-bridge.xethub.hf.co"


def _entries(backends: Mapping[str, str]) -> str:
    return " ".join(f"{name} {address};" for name, address in backends.items() if address)
