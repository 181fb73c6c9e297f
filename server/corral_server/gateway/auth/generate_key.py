"""``corral key NAME``, or ``python -m corral_server.gateway.auth.generate_key NAME [NAMESPACE]``: generate an API key.

The key is printed to standard error and stored nowhere. Standard output gets the entry for ``keys:`` in the key file.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from corral_core.contracts.api_keys import generate_key
from corral_server.gateway.auth.key_file import InvalidKeyFile, parse_keys


def main(arguments: Sequence[str]) -> int:
    """Return the exit code: 0 if a key was generated."""
    if len(arguments) not in (1, 2):
        print("usage: corral key NAME [--namespace NAMESPACE]", file=sys.stderr)
        return 2
    key, digest = generate_key(arguments[1] if len(arguments) == 2 else "")
    entry = f'- name: {arguments[0]}\n  sha256: "{digest}"\n'
    try:
        parse_keys(f"keys:\n{entry}")
    except InvalidKeyFile as error:
        print(f"corral: {error}", file=sys.stderr)
        return 1
    print(f"API key (shown only once): {key}", file=sys.stderr)
    print(entry, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
