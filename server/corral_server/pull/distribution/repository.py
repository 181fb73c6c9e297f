"""A repository of a registry, and the URLs of its API."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from corral_server.registries.docker_config import api_host


def scheme(host: str, plain_http_hosts: Collection[str]) -> str:
    """Return ``http`` if the host (``host[:port]``) is in the collection, with or without its port, else ``https``."""
    name, colon, port = host.rpartition(":")
    bare = name if colon and port.isdigit() else host
    return "http" if host in plain_http_hosts or bare in plain_http_hosts else "https"


@dataclass(frozen=True, slots=True)
class Repository:
    """``registry`` is ``host[:port]``. ``realm_at_registry``: its token server must have the same host."""

    registry: str
    name: str
    plain_http_hosts: Collection[str] = ()
    realm_at_registry: bool = False

    @property
    def host(self) -> str:
        """Host of the API, with its port if the registry has one."""
        return api_host(self.registry)

    @property
    def url(self) -> str:
        """Base of the API's URLs, without a slash at the end."""
        return f"{scheme(self.host, self.plain_http_hosts)}://{self.host}/v2/{self.name}"
