"""Hosts of remote sources, by which an installation assigns credentials to them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from corral_core.sources.forms import BucketSource, HubSource, OciSource, OllamaSource, RemoteSource

HUB_HOSTS: Final[Mapping[str, str]] = {"hf": "huggingface.co", "modelscope": "modelscope.cn"}
"""Host of each hub, also if a mirror stands for it."""

_LABEL = "[a-z0-9]([a-z0-9-]*[a-z0-9])?"
HOST_PATTERN: Final = re.compile(rf"([*][.])?{_LABEL}([.]{_LABEL})*(:[0-9]{{1,5}})?")
"""A host with or without a port, or ``*.`` and a domain."""


def source_host(source: RemoteSource) -> str:
    """Return the host of a source, with its port if the URI has one; of an object store its scheme, such as ``s3``."""
    match source:
        case OllamaSource() | OciSource():
            return source.registry.lower()
        case HubSource():
            return HUB_HOSTS[source.hub]
        case BucketSource():
            return source.provider
        case _:
            return urlsplit(source.uri).netloc.lower()


def matches_host(pattern: str, host: str) -> bool:
    """Return whether a host is that of the pattern. ``*.example.com`` is any host below ``example.com``.

    A pattern without a port matches every port.
    """
    bare = host.partition(":")[0]
    if pattern.startswith("*."):
        return (host if ":" in pattern else bare).endswith(pattern[1:])
    return pattern in (host, bare)
