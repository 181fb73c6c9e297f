"""What a puller needs of the network: the resolvers of all forms of sources, the readers of all kinds of locations."""

from __future__ import annotations

from typing import Protocol

from corral_core.sources.forms import Source
from corral_server.pull.remote_files import ByteStream, Location, ResolvedSource


class Transports(Protocol):
    """``network.NetworkTransports``; it raises SourceError for a source that is not remote."""

    def resolve(self, source: Source, *, pin: str = "") -> ResolvedSource:
        """As ``Resolver.resolve``, for every form of remote source."""
        ...

    def open(self, location: Location, *, start: int = 0, end: int | None = None) -> ByteStream:
        """As ``RangeReader.open``, for every kind of location."""
        ...
