"""Error messages in responses of registries."""

from __future__ import annotations

from typing import Final

from corral_core.base.json_fields import get_objects, get_str
from corral_core.base.received_json import parse_received

_LIMIT: Final = 64 * 1024
_MAX_MESSAGE: Final = 300


def error_message(body: bytes) -> str:
    """Return the error message in a response as printable text of bounded length, or an empty string.

    Registries send ``{"errors": [{"code", "message"}]}`` (distribution-spec, "Error Codes").
    """
    try:
        errors = get_objects(parse_received(body, limit=_LIMIT), "errors")
    except ValueError:
        return ""
    texts = [get_str(error, "message") or get_str(error, "code") for error in errors[:3]]
    text = "; ".join(text for text in texts if text)[:_MAX_MESSAGE]
    return "".join(character if character.isprintable() else " " for character in text)
