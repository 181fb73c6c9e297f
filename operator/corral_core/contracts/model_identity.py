"""Identity of a Model in requests to its runners: the header by which a runner refuses requests that are not its own.

An address can belong to another pod than a gateway or the operator assumes for as long as that process has no
connection to the API server: Kubernetes gives the address of a deleted pod to the next one, which may be a runner of
another tenant. Therefore:

- Every request of a gateway, the operator or local mode to a runner has the header
  ``corral-model-identity: namespace/name [uid]``: prompts, unload requests, reads and streams of the runner status.
- A runner answers 421 (RFC 9110 section 15.5.20) without reading the body if the key or the uid is not its own.
- The uid tells a Model from one of the same name that was created again, possibly by another tenant. It is compared if
  both sides know one: the Models of local mode have none.
- A request without the header is served: probes, scrapers, and users with access to the pod.
"""

from __future__ import annotations

import re
from typing import Final

IDENTITY_HEADER: Final = "corral-model-identity"
MISDIRECTED: Final = 421
"""Status of the refusal: the request was not begun, so it can be sent again."""

_UID = re.compile(r"[0-9A-Za-z-]{1,64}")


def model_identity(key: str, uid: str) -> str:
    """Return the value of the header; ``key`` is ``namespace/name``. A uid that is not one is left out."""
    return f"{key} {uid}" if _UID.fullmatch(uid) else key


def is_addressed_to(header: str, identity: str) -> bool:
    """Return whether a request with this header is for the Model with this identity."""
    key, _, uid = header.partition(" ")
    own_key, _, own_uid = identity.partition(" ")
    return key == own_key and (uid == own_uid or not uid or not own_uid)
