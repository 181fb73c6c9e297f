"""Client of the server at OLLAMA_HOST: Ollama's Python client, with errors as messages of the command line."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import httpx
import ollama

from corral_core.base.errors import CorralError
from corral_server.local.background.server import BackgroundServer

TIMEOUT = httpx.Timeout(3600.0, connect=5.0)
"""Seconds. A request can stay long in the queue, and a model can take long to answer."""


class RequestFailed(CorralError):
    """The server is unreachable or refused the request; the text says which."""


def connect(*, start: bool = True) -> ollama.Client:
    """Return a client of the server; with ``start`` one is started in the background if nothing listens there.

    Raises CannotStart.
    """
    client = ollama.Client(timeout=TIMEOUT)
    if start:
        BackgroundServer(server_url(client), os.environ).start_if_needed()
    return client


def server_url(client: ollama.Client) -> httpx.URL:
    """Return the address that the client derived from OLLAMA_HOST."""
    url: httpx.URL = client._client.base_url
    return url


def all_tags(client: ollama.Client) -> list[dict[str, Any]]:
    """Return the items of ``/api/tags`` as they are: the client's own call drops the fields that Ollama lacks."""
    response = client._client.get("/api/tags")
    response.raise_for_status()
    tags: list[dict[str, Any]] = response.json().get("models") or []
    return tags


def full_name(name: str) -> str:
    """Return a model's name with its tag."""
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


@contextlib.contextmanager
def client_errors() -> Iterator[None]:
    """Convert the client's errors to RequestFailed; some calls raise errors of the HTTP library below it."""
    try:
        yield
    except ollama.ResponseError as error:
        raise RequestFailed(error.error) from error
    except httpx.HTTPStatusError as error:
        raise RequestFailed(f"{error.request.url}: {error.response.text[:500]}") from error
    except BrokenPipeError:
        raise  # of the output: the HTTP library has errors of its own for the connection
    except (ConnectionError, httpx.TransportError) as error:
        where = os.environ.get("OLLAMA_HOST") or "127.0.0.1:11434"
        cause = error.__cause__ or (error if isinstance(error, httpx.TransportError) else None)
        reason = f" ({cause})" if cause is not None else ""  # the client's own text advises to install Ollama
        raise RequestFailed(f"no answer from {where}{reason}; is `corral serve` running?") from error
