"""Remote sources of a Model: those that are pulled into a store before a runner can load them."""

from __future__ import annotations

from corral_core.model.model import ModelSpec
from corral_core.model.pulling import EPHEMERAL
from corral_core.sources.uri import is_remote, parse_source


def remote_sources(spec: ModelSpec) -> tuple[str, ...]:
    """Return the remote URIs of the weights, the adapters and the projector, each once, in this order."""
    uris = [spec.source, *(adapter.source for adapter in spec.adapters)]
    uris += [spec.projector] if spec.projector is not None else []
    return tuple(dict.fromkeys(uri for uri in uris if is_remote(parse_source(uri))))


def pulled_in_pod(spec: ModelSpec) -> bool:
    """Return whether each runner pod pulls the remote sources itself, into a volume that ends with it."""
    return spec.cache.type == EPHEMERAL and bool(remote_sources(spec))
