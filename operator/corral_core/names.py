"""Model names as Ollama's clients write them: ``[host/][namespace/]model[:tag]``.

A name is looked up by its canonical form: lower-case, the tag always there, host and namespace hidden when they are
Ollama's own (``registry.ollama.ai/library``). Two names mean the same model exactly when their canonical forms are
equal.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from corral_core.errors import InvalidName

DEFAULT_HOST = "registry.ollama.ai"
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"

_HOST = r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349}"
_NAMESPACE = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}"
_PART = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}"

PATTERN = f"^(({_HOST}/)?{_NAMESPACE}/)?{_PART}(:{_PART})?$"
"""The grammar as one expression that Python's re and Go's RE2 both know; the CRD has the same."""

GRAMMAR = (
    "[host/][namespace/]model[:tag], each part of letters, digits, '_', '-' and '.' (no '.' in the namespace), "
    "beginning with a letter, a digit or '_', at most 80 characters"
)

_NAME = re.compile(f"(?:(?:(?P<host>{_HOST})/)?(?P<namespace>{_NAMESPACE})/)?(?P<model>{_PART})(?::(?P<tag>{_PART}))?")
_LOCAL = ":local"
LONGEST = 700
"""Characters; more than the grammar allows all parts together, so that what is remembered here stays small."""


@dataclass(frozen=True, slots=True)
class Name:
    """A parsed name with every part filled in, as it was written."""

    host: str
    namespace: str
    model: str
    tag: str

    @property
    def short(self) -> str:
        """``model:tag``, with namespace and host only where they are not the defaults."""
        text = f"{self.model}:{self.tag}"
        if self.host.lower() != DEFAULT_HOST:
            return f"{self.host}/{self.namespace}/{text}"
        return text if self.namespace.lower() == DEFAULT_NAMESPACE else f"{self.namespace}/{text}"

    @property
    def full(self) -> str:
        """``host/namespace/model:tag``."""
        return f"{self.host}/{self.namespace}/{self.model}:{self.tag}"


def parse_name(text: str) -> Name:
    """Raises InvalidName when the text is outside the grammar."""
    match = _NAME.fullmatch(text)
    if match is None:
        raise InvalidName(f"invalid model name {text[:400]!r}: it must be {GRAMMAR}")
    return Name(
        host=match["host"] or DEFAULT_HOST,
        namespace=match["namespace"] or DEFAULT_NAMESPACE,
        model=match["model"],
        tag=match["tag"] or DEFAULT_TAG,
    )


def canonical(name: str) -> str:
    """The form to look a name up by; a ``:local`` suffix, which asks for no remote model, is dropped.

    Raises InvalidName.
    """
    if len(name) > LONGEST:
        raise InvalidName(f"invalid model name: it has {len(name)} characters; it must be {GRAMMAR}")
    return _canonical(name)


@functools.lru_cache(maxsize=1024)
def _canonical(name: str) -> str:
    return _parse_request(name).short.lower()


def full(name: str) -> str:
    """The canonical form with host and namespace, as some of Ollama's errors write it. Raises InvalidName."""
    return _parse_request(name).full.lower()


def _parse_request(name: str) -> Name:
    return parse_name(name[: -len(_LOCAL)] if name.lower().endswith(_LOCAL) else name)
