"""An image of a request, checked and not yet decoded."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Image:
    """A checked image. ``data`` is the file as the client sent it, ``sha256`` its digest in hex digits.

    ``width`` and ``height`` are in pixels, as the file declares them. Its pixels have not been decoded, so they may be
    damaged.
    """

    data: bytes = field(repr=False)
    sha256: str
    width: int
    height: int
