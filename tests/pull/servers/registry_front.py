"""A server in front of a registry that behaves like Ollama's.

- Blobs are answered by a redirect to another host (the registry itself, as ``localhost``), everything else by the
  registry's response.
- With ``keys``, it demands tokens that are requested with the signature of one of these OpenSSH public keys.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import httpx
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from tests.pull.servers.loopback import Handler, serve

_EMPTY = base64.b64encode(b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855").decode()
_RELAYED = ("content-type", "docker-content-digest", "content-range")


@dataclass(slots=True)
class RegistryFront:
    """``paths`` are those of the requests so far; ``redirected`` counts the blobs."""

    registry: str
    keys: Collection[str] = ()
    paths: list[str] = field(default_factory=list)
    redirected: int = 0
    tokens: set[str] = field(default_factory=set)

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Serve, and yield ``127.0.0.1:port``."""
        with serve(self._answer) as host:
            yield host

    def _answer(self, request: Handler, _body: bytes) -> None:
        self.paths.append(request.path)
        host = request.headers["Host"]
        if request.path.startswith("/token"):
            self._issue(request, host)
        elif self.keys and request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            challenge = f'Bearer realm="http://{host}/token",service="{host}",scope="repository:library/x:pull"'
            request.reply(401, b"{}", WWW_Authenticate=challenge)
        elif "/blobs/" in request.path and request.command == "GET":
            self.redirected += 1
            port = self.registry.rpartition(":")[2]
            request.reply(307, Location=f"http://localhost:{port}{request.path}")
        else:
            self._relay(request)

    def _relay(self, request: Handler) -> None:
        headers = {"Accept": request.headers.get("Accept", "*/*")}
        url = f"http://{self.registry}{request.path}"
        answer = httpx.request(request.command, url, headers=headers, trust_env=False)
        kept = {name.replace("-", "_"): answer.headers[name] for name in _RELAYED if name in answer.headers}
        if request.command == "HEAD":
            kept["Content_Length"] = answer.headers["content-length"]
        request.reply(answer.status_code, answer.content, **kept)

    def _issue(self, request: Handler, host: str) -> None:
        public, _, signature = request.headers.get("Authorization", "").partition(":")
        query = parse_qs(urlsplit(request.path).query)
        signed = f"GET,http://{host}{request.path},{_EMPTY}"
        valid = any(key.split()[1] == public and _verified(key, signature, signed) for key in self.keys)
        if not valid or not query["nonce"] or not query["ts"]:
            request.reply(401, b"{}")
            return
        token = secrets.token_hex(16)
        self.tokens.add(token)
        request.reply(200, json.dumps({"token": token}).encode())


def _verified(key: str, signature: str, signed: str) -> bool:
    public = load_ssh_public_key(key.encode())
    assert isinstance(public, Ed25519PublicKey)
    try:
        public.verify(base64.b64decode(signature), signed.encode())
    except InvalidSignature:
        return False
    return True
