"""JSON that is YAML too, for the body of a server-side apply.

Its media type is YAML, and the API server's YAML reader rejects the escapes of two UTF-16 halves by which JSON writes a
character beyond U+FFFF, such as an emoji in a system prompt. Here these characters are written as they are. Everything
else outside of ASCII stays escaped, because YAML does not allow all of it unescaped. An escaped key of more than 1,024
characters is not YAML; the keys in Kubernetes' objects, such as annotations, are shorter.
"""

from __future__ import annotations

import json
import re

_ESCAPE = re.compile(r"\\(?:u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})|u(d[89a-f][0-9a-f]{2})|.)")


def encode(value: object) -> bytes:
    """Encode in UTF-8; a half of a character alone, which no text can have, becomes U+FFFD."""
    return _ESCAPE.sub(_unescaped, json.dumps(value)).encode()


def _unescaped(escape: re.Match[str]) -> str:
    high, low, alone = escape.groups()
    if high:
        return chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
    return "\\ufffd" if alone else escape[0]
