"""``corral key NAME``, or ``python -m corral_server.gateway.keys.make NAME``: makes an API key.

The key is shown at the terminal, on standard error, and kept nowhere. Standard output gets the entry that goes under
``keys:`` in the file of keys.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from corral_server.gateway.keys.file import InvalidKeys, new_key, parse_keys


def main(arguments: Sequence[str]) -> int:
    """0 when a key was made."""
    if len(arguments) != 1:
        print("usage: corral key NAME", file=sys.stderr)
        return 2
    key, digest = new_key()
    entry = f'- name: {arguments[0]}\n  sha256: "{digest}"\n'
    try:
        parse_keys(f"keys:\n{entry}")
    except InvalidKeys as error:
        print(f"corral: {error}", file=sys.stderr)
        return 1
    print(f"key, for whoever is to use it, shown only now: {key}", file=sys.stderr)
    print(entry, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
