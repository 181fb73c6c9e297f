"""API keys: their text, and the hash of it that key files and Secrets have.

The text of a key of a namespace names the namespace, which a gateway looks it up in. Unlike for passwords a fast hash
suffices: a key is 256 random bits and cannot be guessed.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final

PREFIX: Final = "corral_"
_SEPARATOR: Final = "."
"""Follows the namespace in a key; neither a namespace nor the random part has it."""
KEY_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")
"""Names of keys."""
MAX_SECRET_BYTES: Final = 16 * 1024
"""Bytes of all items of a namespace's Secret: about a hundred keys."""


def generate_key(namespace: str = "") -> tuple[str, str]:
    """Return a new key and its SHA-256 in hexadecimal. ``namespace`` is the one whose Secret has the key, if any."""
    owner = f"{namespace}{_SEPARATOR}" if namespace else ""
    key = PREFIX + owner + secrets.token_urlsafe(32)
    return key, key_digest(key.encode()).hex()


def key_namespace(key: bytes) -> str:
    """Return the namespace that the text of a key names, empty for none."""
    owner, separator, _ = key.decode("latin-1").removeprefix(PREFIX).partition(_SEPARATOR)
    return owner if separator else ""


def key_digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
