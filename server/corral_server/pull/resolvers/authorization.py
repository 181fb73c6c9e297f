"""Authorization header of a source's credentials."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from urllib.parse import urlsplit

from corral_server.pull.credentials import Credentials


def authorization(credentials: Credentials, url: str) -> Mapping[str, str]:
    """Return the Authorization header for a URL's host: the token for it (RFC 6750), else user and password (RFC 7617).

    Empty without either. The caller sends it to that host alone.
    """
    token = credentials.token_for(urlsplit(url).hostname or "")
    if token:
        return {"Authorization": f"Bearer {token}"}
    if credentials.username:
        pair = f"{credentials.username}:{credentials.password}".encode()
        return {"Authorization": f"Basic {base64.b64encode(pair).decode()}"}
    return {}
