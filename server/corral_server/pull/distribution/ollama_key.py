"""Signature of a token request with the key of an Ollama account, as the ``ollama`` command signs it.

The key is ``~/.ollama/id_ed25519``, an OpenSSH private key whose public part was added to the account. Source of the
format: getAuthorizationToken in Ollama's server/auth.go and Sign in auth/auth.go.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
import time

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_ssh_private_key

from corral_core.base.errors import SourceError

_NO_BODY = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()


def signature_parameters() -> dict[str, str]:
    """Return the query parameters that make each signed URL unique: seconds since 1970 and a nonce of 16 bytes."""
    return {"ts": str(int(time.time())), "nonce": secrets.token_urlsafe(16)}


def sign_request(key: str, url: str) -> str:
    """Return the header Authorization for a GET request of the URL: public key and signature, both in base64.

    Raises SourceError if the key is not an ed25519 key in OpenSSH's format without a passphrase.
    """
    try:
        private = load_ssh_private_key(key.strip().encode() + b"\n", password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        private = None
    if not isinstance(private, Ed25519PrivateKey):
        raise SourceError(
            "the Ollama key is not valid: it must be the content of ~/.ollama/id_ed25519, without a passphrase"
        )
    public = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1].decode()
    signature = private.sign(f"GET,{url},{_NO_BODY}".encode())
    return f"{public}:{base64.b64encode(signature).decode()}"
