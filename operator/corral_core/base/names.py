"""Model names of the form ``[host/][namespace/]model[:tag]``, as in Ollama (``types/model/name.go``).

- Names are looked up by their canonical form: lower case, with a tag, without host and namespace where these are
  Ollama's defaults (``registry.ollama.ai/library``).
- Two names refer to the same model if and only if their canonical forms are equal.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from corral_core.base.errors import InvalidName

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

_HOST = r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}"
_NAMESPACE = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}"
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"

NAME_PATTERN = f"^(({_HOST}/)?{_NAMESPACE}/)?{_PART}(:{_PART})?$"
"""The grammar as a regular expression for both Python's re and Go's RE2; the CRD has the same one."""

GRAMMAR = (
    "[host/][namespace/]model[:tag], each part of letters, digits, '_', '-' and '.' (no '.' in the namespace), "
    "starting with a letter, a digit or '_', at most 80 characters"
)

_NAME = re.compile(f"(?:(?:(?P<host>{_HOST})/)?(?P<namespace>{_NAMESPACE})/)?(?P<model>{_PART})(?::(?P<tag>{_PART}))?")
_LOCAL = ":local"
MAX_NAME_LENGTH = 700
"""Characters; above the grammar's total, it bounds the memory of the cache of canonical names."""


@dataclass(frozen=True, slots=True)
class ModelName:
    """A parsed name with defaults filled in and letter case preserved."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def short(self) -> str:
        """``model:tag``, with namespace and host only if they are not the defaults."""
        text = f"{self.model}:{self.tag}"
        if self.host.lower() != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{text}"
        return text if self.namespace.lower() == DEFAULT_NAMESPACE else f"{self.namespace}/{text}"

    @property
    def full(self) -> str:
        """``host/namespace/model:tag``."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"


def parse_name(text: str) -> ModelName:
    """Parse a name. Raises InvalidName."""
    match = _NAME.fullmatch(text)
    if match is None:
        raise InvalidName(f"invalid model name {text[:400]!r}: it must be {GRAMMAR}")
    return ModelName(
        host=match["host"] or DEFAULT_HOST,
        namespace=match["namespace"] or DEFAULT_NAMESPACE,
        model=match["model"],
        tag=match["tag"] or DEFAULT_TAG,
    )


def canonical_name(name: str) -> str:
    """Return the form by which a name is looked up, without Ollama's ``:local`` suffix.

    Raises InvalidName.
    """
    if len(name) > MAX_NAME_LENGTH:
        raise InvalidName(f"invalid model name: it has {len(name)} characters; it must be {GRAMMAR}")
    return _canonical_name(name)


@functools.lru_cache(maxsize=1024)
def _canonical_name(name: str) -> str:
    return parse_requested_name(name).short.lower()


def full_name(name: str) -> str:
    """Return the canonical form with host and namespace, as in some of Ollama's errors. Raises InvalidName."""
    return parse_requested_name(name).full.lower()


def parse_requested_name(name: str) -> ModelName:
    """Parse the name in a request, without Ollama's ``:local`` suffix. Raises InvalidName."""
    return parse_name(name[: -len(_LOCAL)] if name.lower().endswith(_LOCAL) else name)
