"""Demo of the README: serves a small model, sends it a question, and shows where the time went.

It starts ``corral serve`` as a child process and uses it only over HTTP, with the client library ``ollama``. The model
is not loaded when the question is sent, so the table after the answer shows the parts of a cold start.
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

from scripts import ui
from scripts.serving import ServeExited, Serving
from scripts.wake import PARTS, Wake, wake

MODEL_FILE = Path(__file__).resolve().parent.parent / "examples/smollm2.yaml"
MODEL = "smollm2"
QUESTION = "Why is the sky blue? Answer in one sentence."
PORT = 11434


def free(port: int) -> bool:
    """Return whether this port of the loopback interface is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def choose_port(wanted: int | None) -> int:
    """Return the port to serve on: the requested one, else Ollama's if it is free, else 0 for any free port."""
    if wanted is not None:
        if wanted and not free(wanted):
            raise SystemExit(f"port {wanted} is in use; set another one with PORT=, or omit it to use any free port")
        return wanted
    if free(PORT):
        return PORT
    say(f"port {PORT} is in use (perhaps by Ollama): serving on another one")
    return 0


def say(text: str = "", end: str = "\n") -> None:
    print(text, end=end, flush=True)


def ask(serving: Serving) -> Wake:
    say(f'\n{MODEL} is not loaded. Question: "{QUESTION}"\n')
    woken = wake(serving, MODEL, QUESTION, on_text=lambda text: say(text, end=""), predict=120)
    say(f"\n\n{'phase':<72}{'seconds':>8}")
    for part, meaning in PARTS.items():
        say(f"{meaning:<72}{woken.parts[part]:8.2f}")
    say(f"{'time to first token':<72}{woken.first_token_s:8.2f}")
    speed = f"time to the end of the answer ({woken.tokens} tokens, {woken.tokens_per_second:.0f} tokens/s)"
    say(f"{speed:<72}{woken.total_s:8.2f}")
    return woken


def show_examples(url: str) -> None:
    host = url.removeprefix("http://")
    say(f"\nServing on {url} until Ctrl-C. Try it with any Ollama or OpenAI client:")
    say(f"  OLLAMA_HOST={host} .venv/bin/corral run {MODEL} 'Tell me a story'")
    say(f"  OLLAMA_HOST={host} .venv/bin/corral ps")
    say(f"""  curl {url}/api/generate -d '{{"model": "{MODEL}", "prompt": "Hello"}}'""")
    say(f"  OpenAI's base URL: {url}/v1")
    if (ui.TARGET / "index.html").exists():
        say(f"  page for browsers: {url}/ui")


def serve(port: int, *, once: bool) -> int:
    """Run the demo; return the exit code. Ctrl-C in the terminal also ends ``corral serve``, so only wait for it."""
    with Serving([str(MODEL_FILE)], port) as serving:
        try:
            ask(serving)
            if once:
                return 0
            show_examples(serving.url)
            return serving.forever()
        except KeyboardInterrupt:
            say("\nstopping")
            return serving.forever()


def main() -> int:
    parser = argparse.ArgumentParser(description="Serve a small model, send it a question, show where the time went.")
    parser.add_argument("--once", action="store_true", help="exit after the answer")
    parser.add_argument("--port", type=int, help=f"default: {PORT}, or any free port if it is in use")
    arguments = parser.parse_args()
    port = choose_port(arguments.port)
    say(f"starting: corral serve {MODEL_FILE.name}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the child as well
    with contextlib.suppress(KeyboardInterrupt):
        try:
            return serve(port, once=arguments.once)
        except (ServeExited, TimeoutError, ollama.ResponseError, ConnectionError) as error:
            say(f"\nThe demo failed: {error}")
            return 1
    return 130


if __name__ == "__main__":
    sys.exit(main())
