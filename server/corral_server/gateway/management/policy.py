"""Policy for Models that clients create by the API: which clients, where, from which sources, with which defaults.

- A Model is made in the first namespace of the caller's API key; for a key of all namespaces, and without keys, in
  ``namespace``.
- ``sources`` are patterns for sources that a client names; ``*`` matches any text. The registry of an ``ollama://``
  source is written out (``ollama://registry.ollama.ai/library/llama3.2:1b``), so that a pattern for the registry of
  Ollama allows no other host. What a client uploads, and the source of a Model that it sees, need no pattern.
- Only Models that the API made are changed and deleted, all Models with ``manage_all``.
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from corral_core.base.errors import InvalidModel, InvalidSetting, SourceError
from corral_core.base.json_fields import JsonObject
from corral_core.base.settings import bool_setting, choice_setting, list_setting
from corral_core.model.resource import DEFAULT_NAMESPACE, parse_model
from corral_core.sources.uri import shown_uri
from corral_server.gateway.auth.key_file import ApiKey
from corral_server.gateway.management.names import written_out
from corral_server.wire.errors import ApiError

NEVER, KEYS, ANYONE = "never", "keys", "anyone"
DEFAULT_SOURCES: Final = ("ollama://registry.ollama.ai/*", "hf://*")

_READ_ONLY = (
    "this server does not create or change models by its API: apply or delete a Model with kubectl instead, or ask an "
    "administrator to set CORRAL_MODELS_CREATE (chart: models.create)"
)
_NO_KEY = (
    "creating or changing a model needs an API key: send 'Authorization: Bearer KEY', apply a Model with kubectl "
    "instead, or ask an administrator to set CORRAL_MODELS_CREATE to Anyone (chart: models.create)"
)
_KEY_MAY_NOT = (
    "this API key may not create or change models: apply a Model with kubectl instead, or ask an administrator "
    "(createModels in the entry of the key, models.namespaceKeys in the chart)"
)
_UNSETTABLE = ("source", "names", "sha256")
"""Fields that a profile cannot set: they belong to one Model."""


@dataclass(frozen=True, slots=True)
class Profile:
    """Defaults of the spec of Models whose source (written out) matches one of the patterns."""

    sources: tuple[str, ...]
    spec: JsonObject


@dataclass(frozen=True, slots=True)
class CreationPolicy:
    """``create`` is NEVER, KEYS or ANYONE. Of ``profiles`` the first one that matches a source counts.

    ``namespaces`` are those in which clients can make Models, empty for all. ``namespace_keys``: so can the keys that
    namespaces have in Secrets of their own.
    """

    create: str = KEYS
    namespace: str = DEFAULT_NAMESPACE
    sources: tuple[str, ...] = DEFAULT_SOURCES
    profiles: tuple[Profile, ...] = ()
    manage_all: bool = False
    namespaces: tuple[str, ...] = ()
    namespace_keys: bool = True

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str], *, create: str = KEYS, sources: tuple[str, ...] = DEFAULT_SOURCES
    ) -> CreationPolicy:
        """``create`` and ``sources`` are the defaults of their settings. Raises InvalidSetting."""
        choices = (NEVER, KEYS, ANYONE)
        return cls(
            create=choice_setting(environ, "CORRAL_MODELS_CREATE", default=create, choices=choices),
            namespace=_namespaces(environ, "CORRAL_MODELS_NAMESPACE", default=(DEFAULT_NAMESPACE,))[0],
            sources=list_setting(environ, "CORRAL_MODELS_SOURCES", default=sources),
            profiles=parse_profiles(environ.get("CORRAL_MODELS_PROFILES", "").strip()),
            manage_all=bool_setting(environ, "CORRAL_MODELS_MANAGE_ALL", default=False),
            namespaces=_namespaces(environ, "CORRAL_MODELS_NAMESPACES", default=()),
            namespace_keys=bool_setting(environ, "CORRAL_MODELS_NAMESPACE_KEYS", default=True),
        )

    def namespace_of(self, key: ApiKey | None) -> str:
        """Return the namespace in which a caller with this key makes Models. Raises ApiError 403."""
        if self.create == NEVER:
            raise ApiError(403, _READ_ONLY)
        if key is None and self.create == KEYS:
            raise ApiError(403, _NO_KEY)
        if key is not None and not (key.create_models and (self.namespace_keys or not key.in_secret)):
            raise ApiError(403, _KEY_MAY_NOT)
        namespace = (key.namespace if key is not None else "") or self.namespace
        if self.namespaces and namespace not in self.namespaces:
            raise ApiError(
                403,
                f"models cannot be created or changed in namespace {namespace}: apply a Model with kubectl instead, or "
                "ask an administrator to add it to CORRAL_MODELS_NAMESPACES (chart: models.namespaces)",
            )
        return namespace

    def check_source(self, uri: str) -> None:
        """Raise ApiError 403 for a source that no pattern allows, 400 for one that is not valid."""
        try:
            text = written_out(uri)
        except SourceError as error:
            raise ApiError(400, str(error)) from None
        if not any(fnmatch.fnmatchcase(text, pattern) for pattern in self.sources):
            allowed = ", ".join(self.sources) or "none"
            raise ApiError(
                403,
                f"models from {shown_uri(text)} are not allowed here (allowed: {allowed}): apply a Model with kubectl "
                "instead, or ask an administrator to extend CORRAL_MODELS_SOURCES (chart: models.sources)",
            )

    def defaults(self, uri: str) -> JsonObject:
        """Return the defaults for the spec of a Model with this source. Raises SourceError."""
        text = written_out(uri)
        found = (each.spec for each in self.profiles if any(fnmatch.fnmatchcase(text, one) for one in each.sources))
        return next(found, {})


def parse_profiles(text: str) -> tuple[Profile, ...]:
    """Parse a JSON list of ``{"sources": [pattern, ...], "spec": {...}}``. Raises InvalidSetting."""
    try:
        items = json.loads(text) if text else []
    except ValueError as error:
        raise _invalid(f"it is not valid JSON: {error}") from None
    if not isinstance(items, list):
        raise _invalid("it must be a list")
    return tuple(_profile(item) for item in items)


def _profile(item: object) -> Profile:
    if not isinstance(item, dict) or set(item) - {"sources", "spec"} or not isinstance(item.get("spec"), dict):
        raise _invalid('each profile must have the fields "sources", a list of patterns, and "spec", an object')
    sources, spec = item.get("sources", ["*"]), item["spec"]
    if not isinstance(sources, list) or not all(isinstance(each, str) for each in sources):
        raise _invalid('"sources" must be a list of patterns such as "ollama://registry.ollama.ai/*:70b"')
    fixed = [name for name in _UNSETTABLE if name in spec]
    if fixed:
        raise _invalid(f"a profile cannot set spec.{fixed[0]}")
    try:
        parse_model({"metadata": {"name": "profile"}, "spec": {**spec, "source": "ollama://any"}})
    except InvalidModel as error:
        raise _invalid(str(error)) from None
    return Profile(tuple(sources), spec)


def _invalid(text: str) -> InvalidSetting:
    return InvalidSetting(f"CORRAL_MODELS_PROFILES is not allowed: {text}")


def _namespaces(environ: Mapping[str, str], name: str, *, default: tuple[str, ...]) -> tuple[str, ...]:
    namespaces = list_setting(environ, name, default=default)
    if not all(re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", each) for each in namespaces):
        raise InvalidSetting(f"{name}={environ[name]!r} is not allowed: it must have names of namespaces")
    return namespaces
