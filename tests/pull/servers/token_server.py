"""Token server for a registry: issues JSON web tokens for a user and for a refresh token.

Protocol: https://distribution.github.io/distribution/spec/auth/jwt/ and .../auth/oauth/. Tokens are signed by ES256,
with the certificate in the header (``x5c``); the registry trusts that certificate.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.pull.servers.loopback import Handler, serve
from tests.pull.servers.registry import TokenServerSettings

ISSUER = "token-server.test"


class TokenServer:
    """Issues tokens for a user and for a refresh token; ``valid_for`` is the validity of the next ones in seconds.

    ``methods`` are those of the requests so far.
    """

    def __init__(self, folder: Path, user: tuple[str, str], *, refresh_token: str) -> None:
        self.valid_for = 300
        self.methods: list[str] = []
        self._user = user
        self._refresh_token = refresh_token
        self._key = generate_private_key(SECP256R1())
        self._certificate = self._self_signed()
        self._file = folder / "tokens.pem"
        self._file.write_bytes(self._certificate.public_bytes(Encoding.PEM))

    @contextlib.contextmanager
    def running(self) -> Iterator[TokenServerSettings]:
        """Serve, and yield what the registry has to know."""
        with serve(self._answer) as host:
            yield TokenServerSettings(f"http://{host}/token", ISSUER, self._file)

    def token(self, scopes: list[str], service: str) -> str:
        """Return a token with access as the scopes say (``repository:NAME:ACTIONS``)."""
        now = int(time.time())
        access = [dict(zip(("type", "name", "actions"), scope.split(":"), strict=True)) for scope in scopes]
        claims = {
            "iss": ISSUER,
            "sub": self._user[0],
            "aud": service,
            "iat": now - 120,
            "nbf": now - 120,
            "exp": now + self.valid_for,
            "jti": "1",
            "access": [item | {"actions": item["actions"].split(",")} for item in access],
        }
        der = base64.b64encode(self._certificate.public_bytes(Encoding.DER)).decode()
        signed = f"{_encoded({'typ': 'JWT', 'alg': 'ES256', 'x5c': [der]})}.{_encoded(claims)}"
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ECDSA(SHA256())))
        return f"{signed}.{_base64url(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"

    def _answer(self, request: Handler, body: bytes) -> None:
        self.methods.append(request.command)
        query = parse_qs(urlsplit(request.path).query if request.command == "GET" else body.decode())
        service = query.get("service", [""])[0]
        scopes = [scope for value in query.get("scope", []) for scope in value.split()]
        if request.command == "POST":
            valid = query.get("refresh_token") == [self._refresh_token] and query["grant_type"] == ["refresh_token"]
        else:
            login = base64.b64encode(":".join(self._user).encode()).decode()
            valid = request.headers.get("Authorization") in (None, f"Basic {login}")
            scopes = scopes if "Authorization" in request.headers else []
        if not valid:
            request.reply(401, b'{"details": "incorrect username or password"}')
            return
        request.reply(200, json.dumps({"access_token": self.token(scopes, service)}).encode())

    def _self_signed(self) -> x509.Certificate:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ISSUER)])
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(self._key.public_key())
        builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        return builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(
            self._key, SHA256()
        )


def _encoded(data: object) -> str:
    return _base64url(json.dumps(data).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
