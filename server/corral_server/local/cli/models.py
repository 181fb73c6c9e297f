"""``corral create``, ``cp``, ``rm`` and ``stop``: Ollama's verbs for the server of OLLAMA_HOST."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import ollama

from corral_core.base.errors import CorralError
from corral_server.local.background.server import BackgroundServer
from corral_server.local.cli.api_client import RequestFailed, client_errors, connect, full_name, server_url
from corral_server.local.management.modelfile import Modelfile, parse_modelfile


class UnreadableFile(CorralError):
    """A file of the command line, or one that a Modelfile names, that cannot be read."""


def create(name: str, file: Path) -> int:
    """Create a model from a Modelfile. Files that it names are uploaded, unless the server has them."""
    modelfile = parse_modelfile(_read(file))
    client = connect()
    for command in modelfile.unused:
        print(f"warning: {command.upper()} has no effect here", file=sys.stderr)
    weights = _file(modelfile.source, file.parent)
    with client_errors():
        adapters = {path.name: _upload(client, path) for path in _adapters(modelfile, file.parent)}
        lines = client.create(
            name,
            from_=None if weights is not None else modelfile.source,
            files={weights.name: _upload(client, weights)} if weights is not None else None,
            adapters=adapters or None,
            template=modelfile.template,
            license=list(modelfile.licenses) or None,
            system=modelfile.system,
            parameters=modelfile.parameters or None,
            messages=[{"role": role, "content": content} for role, content in modelfile.messages] or None,
            stream=True,
        )
        last = ""
        for line in lines:
            if line.status and line.status != last:
                print(last := line.status)
    return 0


def copy(source: str, destination: str) -> int:
    with client_errors():
        connect().copy(source, destination)
    print(f"copied '{source}' to '{destination}'")
    return 0


def remove(names: Sequence[str]) -> int:
    client = connect()
    for name in names:
        with client_errors():
            client.delete(name)
        print(f"deleted '{name}'")
    return 0


def stop(names: Sequence[str]) -> int:
    """Unload models, as ``ollama stop`` does: a request with ``keep_alive`` 0. Raises RequestFailed."""
    client = connect(start=False)
    for name in names:
        with client_errors():
            loaded = {str(model.model).lower() for model in client.ps().models}
            if full_name(name).lower() not in loaded:
                raise RequestFailed(f"{name!r} is not loaded; `corral ps` lists loaded models")
            client.generate(name, keep_alive=0)
    return 0


def stop_server() -> int:
    """End the background server. Raises NotRunning."""
    url = server_url(ollama.Client())
    BackgroundServer(url, os.environ).stop()
    print(f"the server at {url} has ended")
    return 0


def _upload(client: ollama.Client, path: Path) -> str:
    """Upload a file and return its digest."""
    print(f"uploading {path.name}")
    return client.create_blob(path)


def _adapters(modelfile: Modelfile, folder: Path) -> list[Path]:
    paths = [(text, _file(text, folder)) for text in modelfile.adapters]
    missing = [text for text, path in paths if path is None]
    if missing:
        raise UnreadableFile(f"ADAPTER {missing[0]}: there is no such file")
    return [path for _, path in paths if path is not None]


def _file(text: str, folder: Path) -> Path | None:
    """Return the file that a Modelfile names, None if the text is no path of a file. Raises UnreadableFile."""
    try:
        path = folder / Path(text).expanduser()
        if path.is_dir():
            raise UnreadableFile(f"{text} is a folder: name a GGUF file")
        return path if path.is_file() else None
    except (OSError, RuntimeError, ValueError):
        return None


def _read(file: Path) -> str:
    try:
        data = file.read_bytes()
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        return data.decode(encoding)
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableFile(f"{file} cannot be read: {error}") from error
