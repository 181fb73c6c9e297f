"""Headers between gateway and runner.

The gateway removes them from clients' requests, and all but ``CONTEXT_LENGTH`` from responses.
"""

from typing import Final

from corral_core.contracts.model_identity import IDENTITY_HEADER

RETRY: Final = b"corral-retry"
"""Response header of a runner's 503 for a request that it did not start; the gateway may retry it on another runner.

The value is the reason: ``loading`` or ``draining``.
"""

MODEL_IDENTITY: Final = IDENTITY_HEADER.encode("ascii")
"""Request header with the identity of the Model that the request is for (``corral_core.contracts.model_identity``)."""

GATEWAY: Final = b"corral-gateway"
"""Request header with the gateway's name; the runner status has the number of active requests per gateway."""

QUEUED: Final = b"corral-queued-ns"
"""Request header with the nanoseconds in the gateway's queue; ``load_duration`` and ``total_duration`` include them."""

MODEL_NAME: Final = b"corral-model-name"
"""Request header with the canonical name by which the gateway found the Model and checked the client's rights.

The runner selects the adapter by it, and not by the name in the body.
"""

PROMPT_TOKENS: Final = b"corral-prompt-tokens"
"""Response header of a runner's stream with the tokens of the prompt.

The gateway counts the tokens of API keys by it when the client does not read the usage at the end of the stream.
"""

CONTEXT_LENGTH: Final = b"corral-context-length"
"""Response header with the context length in tokens that served a request whose ``num_ctx`` is larger."""

MODIFIED: Final = b"corral-modified"
"""Request header with the Unix seconds of the Model's last change, for ``modified_at`` of a runner's ``/api/show``."""


def identity_line(identity: str) -> bytes:
    """Return the line of ``MODEL_IDENTITY`` in a request's head; empty for a runner whose Model is not known."""
    return b"%b: %b\r\n" % (MODEL_IDENTITY, identity.encode("ascii")) if identity else b""
