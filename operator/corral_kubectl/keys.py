"""``kubectl corral keys``: API keys of a namespace, in the Secret that the gateways read (``docs/gateway.md``).

- A key is shown once, when it is created. The Secret has only its SHA-256, so no command can show it again.
- Each key that is created has an item of its own. A Secret that was written by hand may have several in one item.
- What an item has beside the changed key stays as it is; comments of a rewritten item are lost.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from corral_core.base.json_fields import JsonObject, get_object, get_str
from corral_core.base.timestamps import parse_timestamp
from corral_core.contracts.api_keys import KEY_NAME, MAX_SECRET_BYTES, generate_key
from corral_kube.client import KubeClient
from corral_kube.errors import NotFound
from corral_kubectl.models import CommandFailed
from corral_kubectl.texts import table

DEFAULT_SECRET = "corral-api-keys"  # noqa: S105  # the name of a Secret
LIMITS = ("requestsPerMinute", "concurrent", "tokensPerMinute", "tokensPerDay", "outputTokensPerRequest")
"""Fields of a key that are whole numbers."""

Items = dict[str, str]
"""The texts of a Secret by their names."""


@dataclass(frozen=True, slots=True)
class KeySecret:
    """A Secret with API keys. ``found`` is the object, None if it does not exist yet."""

    path: str
    namespace: str
    name: str
    found: JsonObject | None
    items: Items

    @classmethod
    async def read(cls, kube: KubeClient, namespace: str, name: str) -> KeySecret:
        """Raises KubeError, and CommandFailed for a Secret that has something else than text."""
        path = f"/api/v1/namespaces/{namespace}/secrets"
        try:
            found = await kube.get(f"{path}/{name}")
        except NotFound:
            return cls(path, namespace, name, None, {})
        data = get_object(found, "data")
        return cls(path, namespace, name, found, {item: _text(value) for item, value in data.items()})

    async def write(self, kube: KubeClient, items: Mapping[str, str]) -> None:
        """Write these items, if the Secret has not changed since it was read. Raises KubeError (Conflict)."""
        if sum(len(text.encode()) for text in items.values()) > MAX_SECRET_BYTES:
            raise CommandFailed(f"Secret {self.name} would have more than {MAX_SECRET_BYTES} bytes: delete a key first")
        data = {item: base64.b64encode(text.encode()).decode() for item, text in items.items()}
        if self.found is None:
            metadata = {"name": self.name, "namespace": self.namespace}
            kind: JsonObject = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "metadata": metadata}
            await kube.create(self.path, {**kind, "data": data})
        else:
            await kube.replace(f"{self.path}/{self.name}", {**self.found, "data": data})


def with_new_key(items: Items, namespace: str, name: str, fields: Mapping[str, object]) -> tuple[Items, str]:
    """Return the items with a new key, and the key. ``fields`` are those of its entry that are not None.

    Raises CommandFailed for an invalid or used name, and for fields that a gateway would refuse.
    """
    if not KEY_NAME.fullmatch(name):
        raise CommandFailed("the name of a key has 1 to 63 letters, digits, '.', '_' or '-'")
    if any(get_str(entry, "name") == name for entry in entries(items)):
        raise CommandFailed(f"there is a key {name} already: delete it first, or choose another name")
    _check(fields)
    key, digest = generate_key(namespace)
    entry = {"name": name, "sha256": digest, **{field: value for field, value in fields.items() if value is not None}}
    item = next(each for each in _item_names(name) if each not in items)
    return {**items, item: yaml.safe_dump({"keys": [entry]}, sort_keys=False)}, key


def without_key(items: Items, name: str) -> Items:
    """Return the items without this key. Raises CommandFailed if there is none."""
    left: Items = {}
    deleted = False
    for item, text in items.items():
        listed = _entries(item, text)
        kept = [entry for entry in listed if get_str(entry, "name") != name]
        deleted = deleted or len(kept) < len(listed)
        if len(kept) == len(listed):
            left[item] = text
        elif kept:
            left[item] = yaml.safe_dump({"keys": [dict(entry) for entry in kept]}, sort_keys=False)
    if not deleted:
        raise CommandFailed(f"there is no key {name}")
    return left


def entries(items: Items) -> Iterator[JsonObject]:
    """Yield the entries of all keys. Raises CommandFailed for an item that is no key file."""
    for item, text in items.items():
        yield from _entries(item, text)


def key_lines(items: Items) -> list[str]:
    """Return a table of the keys with what they allow, without their hashes."""
    rows = [_row(entry) for entry in entries(items)]
    return table(("NAME", "MODELS", "EXPIRES", "LIMITS"), sorted(rows)) if rows else []


def _row(entry: JsonObject) -> tuple[str, ...]:
    models, expires = entry.get("models"), entry.get("expires")
    limits = ", ".join(f"{name}={entry[name]}" for name in LIMITS if entry.get(name) is not None)
    allowed = ",".join(map(str, models)) if isinstance(models, list) else "*"
    return get_str(entry, "name"), allowed, str(expires) if expires is not None else "never", limits or "none"


def _entries(item: str, text: str) -> list[JsonObject]:
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError:
        document = None
    found = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise CommandFailed(f"item {item} of the Secret is no key file: correct it, or delete the item")
    return found


def _check(fields: Mapping[str, object]) -> None:
    expires = fields.get("expires")
    if isinstance(expires, str) and parse_timestamp(expires) is None:
        raise CommandFailed("--expires must be a time with its zone, such as 2027-01-31T00:00:00Z")
    for name in LIMITS:
        value = fields.get(name)
        if isinstance(value, int) and value < 1:
            raise CommandFailed(f"{name} must be at least 1")


def _item_names(name: str) -> Iterator[str]:
    yield f"{name}.yaml"
    for number in range(2, 1000):
        yield f"{name}-{number}.yaml"


def _text(value: object) -> str:
    try:
        return base64.b64decode(value if isinstance(value, str) else "", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise CommandFailed("an item of the Secret is no text") from None
