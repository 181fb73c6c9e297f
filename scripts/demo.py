"""The README's demo: serves one small model, asks it a question as a client would, and shows what happened meanwhile.

It starts ``corral serve`` as a child process and speaks to it over HTTP only, with PyPI's ``ollama`` client. The model
is cold when the question comes, so the answer shows a whole wake-up; the table after it says where the time went.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import sys
from pathlib import Path

import ollama

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.serving import Ended, Serving
from scripts.wake import PARTS, Wake, wake

MODEL_FILE = Path(__file__).resolve().parent.parent / "examples/smollm2.yaml"
MODEL = "smollm2"
QUESTION = "Why is the sky blue? Answer in two sentences."
PORT = 11434


def free(port: int) -> bool:
    """Whether nothing listens on this port of the loopback interface."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose(wanted: int | None) -> int:
    """The port to serve on: the one asked for, else Ollama's, else (0) any that is free."""
    if wanted is not None:
        if wanted and not free(wanted):
            raise SystemExit(f"port {wanted} is taken; name another with PORT=, or none to have one picked")
        return wanted
    if free(PORT):
        return PORT
    say(f"port {PORT} is taken (by Ollama, perhaps): serving on another one")
    return 0


def say(text: str = "", end: str = "\n") -> None:
    print(text, end=end, flush=True)


def ask(serving: Serving) -> Wake:
    say(f'\n{MODEL} is not loaded. Asking it: "{QUESTION}"\n')
    woken = wake(serving, MODEL, QUESTION, told=lambda piece: say(piece, end=""), predict=120)
    say(f"\n\n{'phase':<72}{'seconds':>8}")
    for part, meaning in PARTS.items():
        say(f"{meaning:<72}{woken.parts[part]:8.2f}")
    say(f"{'the first token after':<72}{woken.first_token_s:8.2f}")
    speed = f"the whole answer ({woken.tokens} tokens, {woken.tokens_per_second:.0f} a second) after"
    say(f"{speed:<72}{woken.total_s:8.2f}")
    return woken


def invite(url: str) -> None:
    host = url.removeprefix("http://")
    say(f"\nServing on {url} until Ctrl-C. Try it with any client of Ollama's or OpenAI's:")
    say(f"  OLLAMA_HOST={host} .venv/bin/corral run {MODEL} 'Tell me a story'")
    say(f"  OLLAMA_HOST={host} .venv/bin/corral ps")
    say(f"""  curl {url}/api/generate -d '{{"model": "{MODEL}", "prompt": "Hello"}}'""")
    say(f"  OpenAI's base URL: {url}/v1")


def serve(port: int, *, once: bool) -> int:
    """The whole demo. Ctrl-C reaches ``corral serve`` too, as it is in the same terminal: it only is waited for."""
    with Serving([str(MODEL_FILE)], port) as serving:
        try:
            ask(serving)
            if once:
                return 0
            invite(serving.url)
            return serving.forever()
        except KeyboardInterrupt:
            say("\nstopping")
            return serving.forever()


def main() -> int:
    parser = argparse.ArgumentParser(description="Serve a small model, ask it a question, show where the time went.")
    parser.add_argument("--once", action="store_true", help="end after the answer")
    parser.add_argument("--port", type=int, help=f"default {PORT}, or any free one when that is taken")
    chosen = parser.parse_args()
    port = choose(chosen.port)
    say(f"starting: corral serve {MODEL_FILE.name}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left behind
    with contextlib.suppress(KeyboardInterrupt):
        try:
            return serve(port, once=chosen.once)
        except (Ended, TimeoutError, ollama.ResponseError, ConnectionError) as error:
            say(f"\nThe demo failed: {error}")
            return 1
    return 130


if __name__ == "__main__":
    sys.exit(main())
