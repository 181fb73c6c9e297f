"""The file of keys: YAML or JSON, as a Secret holds it.

    keys:
      - name: team-a
        sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
        models: ["llama3*", "smollm2:135m"]   # all, when it is left out
        requestsPerMinute: 60                 # no bound, when it is left out
        concurrent: 4                         # no bound, when it is left out

The keys themselves are nowhere, only their SHA-256. That is enough for them, as it is not for passwords: a key is 256
random bits, so there is nothing to guess from and a slow hash would only slow the gateway.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from corral_core.errors import CorralError, InvalidName
from corral_core.names import canonical

PREFIX = "corral_"
_FIELDS = ("name", "sha256", "models", "requestsPerMinute", "concurrent")


class InvalidKeys(CorralError):
    """The file says something that is not allowed."""


@dataclass(frozen=True, slots=True)
class Key:
    """``digest`` is the SHA-256 of the key; ``models`` are patterns; the bounds are None for none."""

    name: str
    digest: bytes
    models: tuple[str, ...] = ("*",)
    per_minute: int | None = None
    concurrent: int | None = None

    @property
    def bounded(self) -> bool:
        """Whether anything is to be counted that other gateways should know."""
        return self.per_minute is not None or self.concurrent is not None

    def allows(self, model: str) -> bool:
        """Whether a name that a client gives is one it may use: as written or in full, with its tag."""
        try:
            name = canonical(model)
        except InvalidName:
            return True  # such a model is nowhere, and the error that says so is better
        short = name.removesuffix(":latest")
        return any(fnmatch.fnmatchcase(name, pattern) or short == pattern for pattern in self.models)


def new_key() -> tuple[str, str]:
    """A new key, and its SHA-256 in hexadecimal."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, digest_of(key.encode()).hex()


def digest_of(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def parse_keys(text: str) -> tuple[Key, ...]:
    """Raises InvalidKeys, which names the entry, and never repeats a value: it may be a key by mistake."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise InvalidKeys(f"the file is not YAML{f' (line {mark.line + 1})' if mark else ''}") from None
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise InvalidKeys("the file must have a list 'keys'")
    keys = tuple(_key(number, entry) for number, entry in enumerate(entries, 1))
    for what, values in (("name", [key.name for key in keys]), ("sha256", [key.digest for key in keys])):
        if len(set(values)) < len(values):
            raise InvalidKeys(f"two keys have the same {what}")
    return keys


def _key(number: int, entry: object) -> Key:
    if not isinstance(entry, dict):
        raise InvalidKeys(f"key {number} must be an object")
    unknown = [str(name) for name in entry if name not in _FIELDS]
    if unknown:
        raise InvalidKeys(f"key {number} has a field that is not known; there are {', '.join(_FIELDS)}")
    name, digest = entry.get("name"), entry.get("sha256")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9._-]{1,63}", name):
        raise InvalidKeys(f"key {number}: name must be 1 to 63 letters, digits, '.', '_' or '-'")
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise InvalidKeys(f"key {name}: sha256 must be the 64 hexadecimal digits that 'corral key' prints, in quotes")
    return Key(
        name,
        bytes.fromhex(digest),
        _patterns(name, entry.get("models")),
        _bound(entry, "requestsPerMinute", name),
        _bound(entry, "concurrent", name),
    )


def _patterns(name: str, models: object) -> tuple[str, ...]:
    if models is None:
        return ("*",)
    if not isinstance(models, list) or not all(isinstance(model, str) and model for model in models):
        raise InvalidKeys(f"key {name}: models must be a list of names, in which * stands for anything")
    return tuple(model.lower() for model in models)


def _bound(entry: Mapping[object, object], field: str, name: str) -> int | None:
    value = entry.get(field)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 1_000_000:
        raise InvalidKeys(f"key {name}: {field} must be a whole number from 1 to 1000000")
    return value
