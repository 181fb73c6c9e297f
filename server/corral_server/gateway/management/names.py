"""From a model name of Ollama to the Model that has it: ``metadata.name`` and ``spec.source``."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from corral_core.base.names import DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG, canonical_name, parse_name
from corral_core.model.model import MAX_NAME
from corral_core.sources.forms import OllamaSource
from corral_core.sources.uri import HUGGING_FACE, parse_source

_DIGITS: Final = 10
_HUGGING_FACE: Final = frozenset({HUGGING_FACE, "huggingface.co"})


def metadata_name(name: str) -> str:
    """Return the ``metadata.name`` of the Model with this name: readable, valid in DNS, one for each canonical name.

    It is the same in every gateway, so that of two that make a Model one gets ModelExists. Raises InvalidName.
    """
    canonical = canonical_name(name)
    digits = hashlib.sha256(canonical.encode()).hexdigest()[:_DIGITS]
    readable = re.sub("[^a-z0-9]+", "-", canonical.removesuffix(f":{DEFAULT_TAG}")).strip("-")
    readable = readable[-(MAX_NAME - _DIGITS - 1) :].strip("-")
    return f"{readable}-{digits}" if readable else f"model-{digits}"


def source_of(name: str) -> str:
    """Return the source that ``ollama pull NAME`` means. Raises InvalidName, and SourceError for an invalid host."""
    parsed = parse_name(name)
    host = parsed.host.lower()
    tag = "" if parsed.tag == DEFAULT_TAG else f":{parsed.tag}"
    if host in _HUGGING_FACE:
        uri = f"hf://{parsed.namespace}/{parsed.model}{tag}"
    elif host != DEFAULT_HOST:
        uri = f"ollama://{host}/{parsed.namespace}/{parsed.model}{tag}"
    elif parsed.namespace.lower() != DEFAULT_NAMESPACE:
        uri = f"ollama://{parsed.namespace}/{parsed.model}{tag}"
    else:
        uri = f"ollama://{parsed.model}{tag}"
    parse_source(uri)
    return uri


def written_out(uri: str) -> str:
    """Return the URI as patterns of allowed sources see it: an ``ollama://`` one has its registry and namespace.

    Raises SourceError.
    """
    source = parse_source(uri)
    if isinstance(source, OllamaSource):
        return f"ollama://{source.registry}/{source.namespace}/{source.name}:{source.tag}"
    return uri
