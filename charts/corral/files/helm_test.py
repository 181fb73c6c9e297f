"""Test of a release (``helm test``): ask the smallest Model for a response, through the Service of the gateways.

Environment: CORRAL_TEST_HOST and CORRAL_TEST_PORT, the address of the Service; CORRAL_TEST_CERTIFICATE, the file with
the certificate of gateways with TLS; CORRAL_TEST_KEY, an API key.

Without a key, gateways that require one pass the test if they answer 401. A Model whose size is unknown or whose
weights are being pulled is not asked. If a Model answers with an error, the next larger one is asked.
"""

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from typing import Any

HOST = os.environ["CORRAL_TEST_HOST"]
CERTIFICATE = os.environ.get("CORRAL_TEST_CERTIFICATE")
URL = f"{'https' if CERTIFICATE else 'http'}://{f'[{HOST}]' if ':' in HOST else HOST}:{os.environ['CORRAL_TEST_PORT']}"
KEY = os.environ.get("CORRAL_TEST_KEY", "").strip()
TIMEOUT = 600.0
"""Seconds without a byte, for a cold start."""


def trust() -> ssl.SSLContext | None:
    """Return a context that trusts only the gateways' own certificate; its names need not include the Service."""
    if not CERTIFICATE:
        return None
    context = ssl.create_default_context(cafile=CERTIFICATE)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def ask(path: str, **body: object) -> dict[str, Any]:
    """Return the JSON of a response. Raises HTTPError for an error status."""
    headers = {"authorization": f"Bearer {KEY}"} if KEY else {}
    request = urllib.request.Request(URL + path, json.dumps(body).encode() if body else None, headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=TIMEOUT, context=trust()) as response:  # noqa: S310  a fixed scheme
        answer: dict[str, Any] = json.load(response)
    return answer


def generate(model: dict[str, Any]) -> str:
    """Return a summary of the Model's response: its first tokens, or the length of an embedding."""
    if "completion" in model["capabilities"]:
        prompt = {"role": "user", "content": "Say hello."}
        few = {"num_predict": 16}  # a small model may go on for minutes
        answer = ask("/api/chat", model=model["name"], messages=[prompt], stream=False, options=few)
        return f"{answer['message']['content']!r}, {answer['eval_count']} tokens"
    return f"an embedding of {len(ask('/api/embed', model=model['name'], input='hello')['embeddings'][0])} numbers"


def main() -> str:
    """Return what was shown. Raises SystemExit, with what failed."""
    try:
        models = ask("/api/tags")["models"]
    except urllib.error.HTTPError as error:
        if error.code == 401 and not KEY:
            return "The gateways require an API key. Set helmTest.apiKey.secret to test a Model as well."
        raise SystemExit(f"/api/tags: {error.code} {error.read().decode(errors='replace')}") from error
    usable = [model for model in models if model["size"] and model.get("capabilities") and "pulling" not in model]
    for model in sorted(usable, key=lambda model: model["size"]):
        try:
            return f"{model['name']}: {generate(model)}"
        except urllib.error.HTTPError as error:
            print(f"{model['name']}: {error.code} {error.read().decode(errors='replace')}", file=sys.stderr)
    if usable:
        raise SystemExit("no Model answered")
    return f"The gateways answer. None of {len(models)} Models can be asked yet."


if __name__ == "__main__":
    print(main())
