"""Parser of ``spec.source``: turns a URI into the value of its form (``forms``).

- ``PATTERNS`` and the rules below them are regular expressions for both Python's re and Go's RE2: the CRD has the same
  ones, so the API server and this parser accept the same URIs.
- Paths cannot leave the package, the claim or the bucket.
- A spec is not secret, so a URI never holds credentials: user information and signed URLs are errors, whose text does
  not repeat them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Final, Literal
from urllib.parse import unquote

from corral_core.base.errors import SourceError
from corral_core.base.names import DEFAULT_HOST, DEFAULT_NAMESPACE, DEFAULT_TAG
from corral_core.sources.forms import (
    BucketSource,
    ClaimSource,
    FileSource,
    HubSource,
    LocalSource,
    OciSource,
    OllamaSource,
    PackageSource,
    Source,
    UrlSource,
)

FORMS: Final[Mapping[str, str]] = {
    "ollama": "ollama://[registry/][namespace/]name[:tag]",
    "hf": "hf://organization/repository[:quantization | /path/file.gguf][@revision]",
    "modelscope": "modelscope://organization/repository[:quantization | /path/file.gguf][@revision]",
    "https": "https://host/path/file.gguf",
    "s3": "s3://bucket/path/file.gguf",
    "gs": "gs://bucket/path/file.gguf",
    "az": "az://container/path/file.gguf",
    "oci": "oci://registry/repository[:tag][@sha256:digest]",
    "pvc": "pvc://claim/path/file.gguf",
    "file": "file:///path/file.gguf",
    "package": "package://python_package/path/file.gguf",
}
"""The form of each scheme, for errors and descriptions."""

_PORT = "([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_HOST = f"[a-z0-9][a-z0-9.-]{{0,252}}(:{_PORT})?"
_REGISTRY = f"([a-z0-9][a-z0-9-]*[.][a-z0-9.-]+(:{_PORT})?|[a-z0-9][a-z0-9-]*:{_PORT}|localhost)"
_PART = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_PATH = r"[^?#\x00-\x1f\x7f]+"
_HUB = (
    f"{_PART}/{_PART}(:{_PART}|" + r"/[^?#@\x00-\x1f\x7f]*[^?#@/\x00-\x1f\x7f][.][Gg][Gg][Uu][Ff])?"
    "(@[A-Za-z0-9_][A-Za-z0-9_./-]{0,254})?"
)
_BUCKET = f"[a-z0-9][a-z0-9._-]{{1,220}}[a-z0-9]/{_PATH}"
_REPOSITORY = "[a-z0-9]+([._-]+[a-z0-9]+)*(/[a-z0-9]+([._-]+[a-z0-9]+)*)*"
_URL = "[A-Za-z0-9._~%!$&()*+,;=:@/-]+([?][A-Za-z0-9._~%!$&()*+,;=:@/?-]*)?"

PATTERNS: Final[Mapping[str, str]] = {
    "ollama": f"^ollama://({_HOST}/({_PART}/)?|[A-Za-z0-9_][A-Za-z0-9_-]{{0,127}}/)?{_PART}(:{_PART})?$",
    "hf": f"^hf://{_HUB}$",
    "modelscope": f"^modelscope://{_HUB}$",
    "https": f"^https://{_HOST}/{_URL}$",
    "s3": f"^s3://{_BUCKET}$",
    "gs": f"^gs://{_BUCKET}$",
    "az": f"^az://{_BUCKET}$",
    "oci": f"^oci://{_REGISTRY}/{_REPOSITORY}(:{_PART})?(@sha256:[0-9a-f]{{64}})?$",
    "pvc": f"^pvc://[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*/{_PATH}$",
    "file": f"^file:///{_PATH}$",
    "package": f"^package://[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*/{_PATH}$",
}
"""What a URI of each scheme matches."""

EMPTY_PARTS: Final = "://[^?]*/[.]{0,2}([/?]|$)"
"""Empty parts, ``.`` and ``..`` in the path, which no URI may have."""
ENCODED_SEPARATORS: Final = "%([01][0-9A-Fa-f]|2[EeFf]|7[Ff])"
"""Control characters, ``.`` and ``/`` as %-codes; of these an ``https://`` URL may have the last two."""
ENCODED_CONTROL: Final = "%([01][0-9A-Fa-f]|7[Ff])"
"""Control characters as %-codes, which no URI may have."""
CREDENTIALS: Final = (
    "^https://[^?]*[?](.*&)?(?i:sig|[a-z0-9_.-]*(signature|credential|token|secret|password|api[_-]?key))="
)
"""Parameters of a URL that carry credentials, which no URI may have."""

LONG_CLAIM: Final = "^pvc://[^/]{254}"
"""A claim whose name has more than 253 characters."""

DOCKER_HUB: Final = "docker.io"
HUGGING_FACE: Final = "hf.co"
"""Host of Hugging Face's registry for Ollama; ``huggingface.co`` is the same one."""

_COMPILED: Final = {scheme: re.compile(pattern) for scheme, pattern in PATTERNS.items()}
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_OTHER_NAMES: Final[Mapping[str, str]] = {
    "huggingface": "hf",
    "hf.co": "hf",
    "ms": "modelscope",
    "gcs": "gs",
    "azure": "az",
    "abfs": "az",
    "wasb": "az",
    "docker": "oci",
    "pypi": "package",
}
"""Names that other programs give to a scheme."""


def parse_source(uri: str) -> Source:
    """Parse a URI. Raises SourceError, whose text has the form of the scheme and no credentials of the URI."""
    scheme = _scheme(uri)
    _check_secrets(uri)
    if not _COMPILED[scheme].fullmatch(uri):
        raise _error(uri, _mistake(uri, scheme) or f"it is not of the form {FORMS[scheme]}")
    _check_path(uri, scheme)
    return _PARSERS[scheme](uri, uri.partition("://")[2])


def is_remote(source: Source) -> bool:
    """Return whether the source is pulled into a store before a runner can read it."""
    return not isinstance(source, LocalSource)


def shown_uri(uri: str) -> str:
    """Return the URI for an error: of bounded length, without user information and parameters."""
    scheme, separator, rest = uri.partition("://")
    host, slash, path = rest.partition("?")[0].partition("/")
    if "@" in host:
        host = f"***@{host.rpartition('@')[2]}"
    return f"{scheme}{separator}{host}{slash}{path}"[:300]


def _error(uri: str, text: str) -> SourceError:
    return SourceError(f"source {shown_uri(uri)!r}: {text}")


def _scheme(uri: str) -> str:
    match = _SCHEME.match(uri)
    if match is None:
        raise SourceError(_without_scheme(uri))
    scheme = match[1]
    if scheme in FORMS:
        return scheme
    if scheme == "http":
        text = "http:// is not encrypted; write https://, and list a host without TLS in CORRAL_PLAIN_HTTP_HOSTS"
        raise _error(uri, text)
    meant = scheme.lower() if scheme.lower() in FORMS else _OTHER_NAMES.get(scheme.lower())
    if meant is not None:
        raise _error(uri, f"the scheme {scheme}:// is not supported; write {FORMS[meant]}")
    raise _error(uri, f"the scheme {scheme}:// is not supported; use one of {_all_forms()}")


def _without_scheme(uri: str) -> str:
    hint = ""
    if _COMPILED["ollama"].fullmatch(f"ollama://{uri}"):
        hint = f"write ollama://{uri} for a model of Ollama's library, or "
    return f"source {shown_uri(uri)!r} has no scheme; {hint}use one of {_all_forms()}"


def _all_forms() -> str:
    return ", ".join(FORMS.values())


def _check_secrets(uri: str) -> None:
    """Refuse user information and signed URLs."""
    scheme, _, rest = uri.partition("://")
    host = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" in host and "@sha256:" not in host and scheme not in ("file", "package", "pvc"):
        raise _error(uri, "it must not have a user or password, since a spec is not secret; use spec.sourceSecretRef")
    if re.search(CREDENTIALS, uri):
        text = "its parameters look like credentials, but a spec is not secret and signed URLs expire"
        raise _error(uri, f"{text}; write the URL without them and use spec.sourceSecretRef, or s3://, gs:// or az://")


def _mistake(uri: str, scheme: str) -> str:
    """Return what to do about a common mistake in a URI that does not match its pattern, or an empty string."""
    rest = uri.partition("://")[2]
    first, _, path = rest.partition("/")
    if any(ord(character) < 32 or ord(character) == 127 for character in uri):
        return "it must not have control characters"
    if scheme == "file" and first:
        return f"a file has no host; write file:///{rest[:200]}"
    if "#" in rest or ("?" in rest and scheme != "https"):
        return "it must not have '?' or '#' (write %3F or %23 for the characters)"
    if scheme == "package" and path:
        return f"{first!r} is not a Python package name; write {FORMS[scheme]}"
    if scheme == "pvc" and path:
        return f"{first!r} is not a PersistentVolumeClaim name; write {FORMS[scheme]}"
    if scheme in ("https", "oci", "ollama") and path and first != first.lower():
        return f"{first!r} must be in lower case; write {FORMS[scheme]}"
    if scheme == "oci":
        return _oci_mistake(rest, first)
    if scheme in ("hf", "modelscope") and path.count("/") > 0:
        return f"the file must be a .gguf file; write {FORMS[scheme]}"
    return ""


def _oci_mistake(rest: str, first: str) -> str:
    name = rest.partition("@")[0]
    if name != name.lower() and ":" not in name:
        return "the repository must be in lower case"
    if "." not in first and ":" not in first:
        return f"it must name the registry; write oci://{DOCKER_HUB}/{rest[:200]} for Docker Hub"
    return ""


def _check_path(uri: str, scheme: str) -> None:
    if re.search(EMPTY_PARTS, uri):
        raise _error(uri, "the path must not have empty parts, '.' or '..'")
    if scheme == "https":
        if re.search(ENCODED_CONTROL, uri):
            raise _error(uri, "it must not have control characters as %-codes")
    elif re.search(ENCODED_SEPARATORS, uri):
        raise _error(uri, "the path must not have control characters, '.' or '/' as %-codes")


def _ollama(uri: str, rest: str) -> OllamaSource:
    *before, last = rest.split("/")
    name, _, tag = last.partition(":")
    has_host = len(before) == 2 or (len(before) == 1 and ("." in before[0] or ":" in before[0]))
    registry = before[0] if has_host else DEFAULT_HOST
    namespace = before[-1] if len(before) > has_host else DEFAULT_NAMESPACE
    registry = HUGGING_FACE if registry == "huggingface.co" else registry
    return OllamaSource(uri, registry, namespace, name=name, tag=tag or DEFAULT_TAG)


def _hub(uri: str, rest: str) -> HubSource:
    hub: Literal["hf", "modelscope"] = "hf" if uri.startswith("hf://") else "modelscope"
    name, _, revision = rest.partition("@")
    organization, repository, *path = name.split("/", 2)
    repository, _, quantization = repository.partition(":")
    return HubSource(
        uri,
        hub,
        f"{organization}/{repository}",
        quantization=quantization or None,
        path=_decoded(path[0]) if path else None,
        revision=revision or None,
    )


def _url(uri: str, rest: str) -> UrlSource:
    del rest
    return UrlSource(uri)


def _bucket(uri: str, rest: str) -> BucketSource:
    bucket, _, key = rest.partition("/")
    provider: Literal["s3", "gs", "az"] = "s3" if uri.startswith("s3") else "gs" if uri.startswith("gs") else "az"
    return BucketSource(uri, provider, bucket, key=unquote(key))


def _oci(uri: str, rest: str) -> OciSource:
    registry, _, name = rest.partition("/")
    name, _, digest = name.partition("@")
    repository, _, tag = name.partition(":")
    return OciSource(uri, registry, repository, reference=digest or tag or DEFAULT_TAG)


def _claim(uri: str, rest: str) -> ClaimSource:
    claim, _, path = rest.partition("/")
    if re.search(LONG_CLAIM, uri):
        raise _error(uri, "the name of a PersistentVolumeClaim has at most 253 characters")
    return ClaimSource(uri, claim, _decoded(path))


def _file(uri: str, rest: str) -> FileSource:
    return FileSource(uri, PurePosixPath("/") / _decoded(rest[1:]))


def _package(uri: str, rest: str) -> PackageSource:
    package, _, path = rest.partition("/")
    return PackageSource(uri, package, _decoded(path))


def _decoded(path: str) -> PurePosixPath:
    return PurePosixPath(unquote(path))


_PARSERS: Final[Mapping[str, Callable[[str, str], Source]]] = {
    "ollama": _ollama,
    "hf": _hub,
    "modelscope": _hub,
    "https": _url,
    "s3": _bucket,
    "gs": _bucket,
    "az": _bucket,
    "oci": _oci,
    "pvc": _claim,
    "file": _file,
    "package": _package,
}
