"""The commands of ``kubectl corral``: they read the API server, and print what the other modules form."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from corral_core.base.json_fields import JsonObject, get_str
from corral_core.base.quantities import format_bytes
from corral_core.base.timestamps import format_time
from corral_core.contracts.source_resolution import RESOLVE_ANNOTATION
from corral_core.model.remote_sources import remote_sources
from corral_core.model.resource import parse_model
from corral_kube.client import KubeClient
from corral_kube.errors import Forbidden
from corral_kubectl.gateway import GatewayRequests, service_of
from corral_kubectl.keys import KeySecret, key_lines, with_new_key, without_key
from corral_kubectl.logs import log_pieces, log_source, pods_of
from corral_kubectl.models import client_name, condition, get_model, list_models, models_path, name_of
from corral_kubectl.status import status_lines
from corral_kubectl.why import Observed, why_lines


@dataclass(frozen=True, slots=True)
class Session:
    """Connection of one command. ``namespace`` is empty for all."""

    kube: KubeClient
    namespace: str
    options: argparse.Namespace


Command = Callable[[Session], Awaitable[None]]
"""May raise KubeError and CommandFailed."""


async def status(session: Session) -> None:
    models = await list_models(session.kube, session.namespace)
    names = session.options.models
    shown = [item for item in models if not names or name_of(item) in names]
    if not shown:
        where = f"in namespace {session.namespace}" if session.namespace else "in this cluster"
        print(f"No Models found {where}.", file=sys.stderr)
        return
    _print(status_lines(shown, time.time(), namespaces=not session.namespace))


async def why(session: Session) -> None:
    model = await get_model(session.kube, session.namespace, session.options.model)
    hidden: list[str] = []
    pods: list[JsonObject] = []
    events: list[JsonObject] = []
    try:
        pods += await pods_of(session.kube, session.namespace, name_of(model))
    except Forbidden:
        hidden.append("pods")
    try:
        events += await _events(session, {name_of(model), f"model-{name_of(model)}", *map(name_of, pods)})
    except Forbidden:
        hidden.append("Events")
    _print(why_lines(Observed(model, pods, events, hidden), time.time()))


async def _events(session: Session, names: set[str]) -> list[JsonObject]:
    """Return the Events of the Model, its Deployment and its pods."""
    listed = await session.kube.list(f"/api/v1/namespaces/{session.namespace}/events")
    return [event for event in listed.items if get_str(event, "involvedObject", "name") in names]


async def logs(session: Session) -> None:
    options = session.options
    model = await get_model(session.kube, session.namespace, options.model)
    source = log_source(await pods_of(session.kube, session.namespace, name_of(model)), name_of(model))
    print(f"pod {source.pod}, container {source.container}", file=sys.stderr)
    pieces = log_pieces(
        session.kube, session.namespace, source, follow=options.follow, tail=options.tail, previous=options.previous
    )
    async for piece in pieces:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


async def load(session: Session) -> None:
    model = await get_model(session.kube, session.namespace, session.options.model)
    body = {"model": client_name(model), "stream": False, **_keep_alive(session.options.keep_alive)}
    async for _ in _requests(session, model).post("/api/generate", body):
        print(f"model {client_name(model)} is loaded")


async def unload(session: Session) -> None:
    model = await get_model(session.kube, session.namespace, session.options.model)
    body = {"model": client_name(model), "keep_alive": 0, "stream": False}
    async for _ in _requests(session, model).post("/api/generate", body):
        print(f"model {client_name(model)} is unloaded when its requests have ended")
    if get_str(condition(model, "Loaded"), "status") == "False":
        print("(it had no runner)")


async def pull(session: Session) -> None:
    """Pull the weights, or look for a new version of pulled ones, as ``spec.updatePolicy`` allows."""
    model = await get_model(session.kube, session.namespace, session.options.model)
    spec = parse_model(model).spec
    if not remote_sources(spec):
        print(f"nothing to pull: {spec.source} is read where it is")
    elif get_str(condition(model, "Pulled"), "status") != "True":
        await _pull_weights(session, model)
    elif spec.update_policy == "Poll":
        annotations = {"annotations": {RESOLVE_ANNOTATION: format_time(time.time())}}
        await session.kube.merge(f"{models_path(session.namespace)}/{name_of(model)}", {"metadata": annotations})
        print("the source is resolved now; a new version is pulled beside the present one")
    elif spec.update_policy == "OnRestart":
        print("the weights are pulled; the source is resolved at the next start from zero replicas (OnRestart)")
    else:
        print("the weights are pulled, and spec.updatePolicy is Pinned: edit spec.source for another version")


async def _pull_weights(session: Session, model: JsonObject) -> None:
    shown = ""
    async for line in _requests(session, model).post("/api/pull", {"model": client_name(model)}):
        done, total = line.get("completed"), line.get("total")
        sizes = [format_bytes(size) for size in (done, total) if isinstance(size, int)]
        text = f"{get_str(line, 'status')} {' of '.join(sizes)}".rstrip()
        if text != shown:
            print(text)
        shown = text


async def create_key(session: Session) -> None:
    options = session.options
    fields = {
        "models": options.allow or None,
        "expires": options.expires,
        "requestsPerMinute": options.requests_per_minute,
        "concurrent": options.concurrent,
        "tokensPerMinute": options.tokens_per_minute,
        "tokensPerDay": options.tokens_per_day,
    }
    secret = await KeySecret.read(session.kube, session.namespace, options.secret)
    items, key = with_new_key(secret.items, session.namespace, options.name, fields)
    await secret.write(session.kube, items)
    print(f"key {options.name} is in Secret {session.namespace}/{secret.name}. It is shown only once:", file=sys.stderr)
    print(key)


async def list_keys(session: Session) -> None:
    secret = await KeySecret.read(session.kube, session.namespace, session.options.secret)
    lines = key_lines(secret.items)
    if lines:
        _print(lines)
    else:
        print(f"No keys found in Secret {session.namespace}/{secret.name}.", file=sys.stderr)


async def delete_key(session: Session) -> None:
    secret = await KeySecret.read(session.kube, session.namespace, session.options.secret)
    await secret.write(session.kube, without_key(secret.items, session.options.name))
    print(f"key {session.options.name} is deleted; requests with it are refused within seconds")


def _requests(session: Session, model: JsonObject) -> GatewayRequests:
    options = session.options
    key = os.environ.get("OLLAMA_API_KEY", "")
    if options.gateway:
        return GatewayRequests(session.kube, None, url=options.gateway, key=key)
    return GatewayRequests(session.kube, service_of(model, options.service, tls=options.tls))


def _keep_alive(text: str | None) -> dict[str, object]:
    """Return the field of a request: a number of seconds, or a duration such as ``30m``."""
    if not text:
        return {}
    return {"keep_alive": int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else text}


def _print(lines: list[str]) -> None:
    print("\n".join(lines))
