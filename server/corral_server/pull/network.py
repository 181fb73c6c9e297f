"""Resolver of each form of source, and reader of each kind of location: the one table of supported sources.

Resolvers are imported and built on first use: a process that pulls from one registry loads no client of object stores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from corral_core.base.errors import SourceError
from corral_core.sources.forms import BucketSource, HubSource, OciSource, OllamaSource, Source, UrlSource
from corral_server.pull.credentials import Credentials
from corral_server.pull.http.client import HttpClient
from corral_server.pull.http.settings import NetworkSettings
from corral_server.pull.remote_files import ByteStream, HttpLocation, Location, RangeReader, ResolvedSource, Resolver
from corral_server.pull.resolvers.hubs.endpoints import hub_endpoints

if TYPE_CHECKING:
    from corral_server.pull.objects.reader import ObjectReader


class NetworkTransports:
    """``Transports`` over the network, with the credentials of one source.

    ``endpoints`` are the addresses of the hubs, as of ``hub_endpoints``. Raises InvalidSetting.
    """

    def __init__(
        self, network: NetworkSettings, credentials: Credentials, *, endpoints: Mapping[str, str] | None = None
    ) -> None:
        self._network = network
        self._credentials = credentials
        self._endpoints = hub_endpoints({}) if endpoints is None else endpoints
        self._resolvers: dict[type[Source], Resolver] = {}
        self._build: Mapping[type[Source], Callable[[], Resolver]] = {
            OllamaSource: self._ollama,
            HubSource: self._hub,
            UrlSource: self._url,
            OciSource: self._oci,
            BucketSource: self._bucket,
        }

    def resolve(self, source: Source, *, pin: str = "") -> ResolvedSource:
        kind = type(source)
        if kind not in self._resolvers:
            if kind not in self._build:
                raise SourceError(f"source {source.uri!r} is read where it is: there is nothing to pull")
            self._resolvers[kind] = self._build[kind]()
        return self._resolvers[kind].resolve(source, pin=pin)

    def open(self, location: Location, *, start: int = 0, end: int | None = None) -> ByteStream:
        reader: RangeReader = self._http if isinstance(location, HttpLocation) else self._objects
        return reader.open(location, start=start, end=end)

    @cached_property
    def _http(self) -> HttpClient:
        return HttpClient(self._network)

    @cached_property
    def _objects(self) -> ObjectReader:
        from corral_server.pull.objects.reader import ObjectReader

        return ObjectReader(self._credentials, self._network)

    def _ollama(self) -> Resolver:
        from corral_server.pull.resolvers.ollama import OllamaResolver

        return OllamaResolver(self._http, self._credentials, plain_http_hosts=self._network.plain_http_hosts)

    def _oci(self) -> Resolver:
        from corral_server.pull.resolvers.oci import OciResolver

        return OciResolver(self._http, self._credentials, plain_http_hosts=self._network.plain_http_hosts)

    def _hub(self) -> Resolver:
        from corral_server.pull.resolvers.hub import HubResolver

        return HubResolver(self._http, self._credentials, endpoints=self._endpoints)

    def _url(self) -> Resolver:
        from corral_server.pull.resolvers.url import UrlResolver

        return UrlResolver(self._http, self._credentials, plain_http_hosts=self._network.plain_http_hosts)

    def _bucket(self) -> Resolver:
        from corral_server.pull.resolvers.buckets import BucketResolver

        return BucketResolver(self._objects)
