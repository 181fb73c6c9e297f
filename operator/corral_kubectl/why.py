"""``kubectl corral why MODEL``: what a Model waits for, in words, and what to do about it. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from corral_core.base.json_fields import JsonObject, get_int, get_object, get_objects, get_str
from corral_core.base.quantities import format_bytes
from corral_core.base.timestamps import parse_timestamp
from corral_kubectl.advice import advice
from corral_kubectl.models import client_name, names_of
from corral_kubectl.status import explanation
from corral_kubectl.texts import age, shortened

_EVENTS = 8
"""Number of Events that are shown."""
_LENGTH = 300


@dataclass(frozen=True, slots=True)
class Observed:
    """A Model with its pods and Events. ``hidden`` are the kinds of objects that the user may not list."""

    model: JsonObject
    pods: Sequence[JsonObject] = ()
    events: Sequence[JsonObject] = ()
    hidden: Sequence[str] = field(default=())


def why_lines(observed: Observed, now: float) -> list[str]:
    """Return the explanation; ``now`` is in Unix seconds."""
    sections = [
        ("", _summary(observed.model)),
        ("Conditions", _conditions(observed.model)),
        ("Pull", _pull(observed.model)),
        ("Placement", _placement(observed.model)),
        ("Pending requests", _demand(observed.model, now)),
        ("Pods", [_pod(pod, now) for pod in observed.pods]),
        ("Events", [_event(event, now) for event in last_events(observed.events)]),
        ("What to do", [*advice(observed.model, observed.pods), *_hidden(observed.hidden)]),
    ]
    lines: list[str] = []
    for title, found in sections:
        entries = list(found)
        if entries:
            lines += [*(["", title] if title else []), *(f"  {entry}" if title else entry for entry in entries)]
    return lines


def last_events(events: Iterable[JsonObject]) -> list[JsonObject]:
    """Return the last Events, the newest last."""
    return sorted(events, key=event_time)[-_EVENTS:]


def event_time(event: JsonObject) -> float:
    """Return when an Event was last observed, in Unix seconds; 0 if it does not say it."""
    series = get_str(event, "series", "lastObservedTime")
    times = (series, *(get_str(event, name) for name in ("lastTimestamp", "eventTime", "firstTimestamp")))
    found = (parse_timestamp(text) for text in times if text)
    return next((moment for moment in found if moment is not None), 0.0)


def _summary(model: JsonObject) -> Iterator[str]:
    phase = get_str(model, "status", "phase") or "Pending"
    yield f"Model {client_name(model)} is {phase}: {explanation(model)}"
    names = names_of(model)
    if names:
        yield f"Clients reach it as {', '.join(names)}."


def _conditions(model: JsonObject) -> Iterator[str]:
    """Yield the conditions that hold something back or tell of a failure."""
    normal = {"Stalled": "", "Reconciling": "", "SecondInstallation": ""}
    for item in get_objects(model, "status", "conditions"):
        kind, status = get_str(item, "type"), get_str(item, "status")
        if status != normal.get(kind, "True"):
            message = shortened(get_str(item, "message"), _LENGTH)
            yield f"{kind} is {status} ({get_str(item, 'reason')}): {message}"


def _pull(model: JsonObject) -> Iterator[str]:
    pull = get_object(model, "status", "pull")
    if pull:
        done, total = get_int(pull, "completedBytes"), get_int(pull, "totalBytes")
        size = f" of {format_bytes(total)}" if total else ""
        rate, left = get_int(pull, "rate"), get_int(pull, "secondsLeft")
        speed = f", {format_bytes(rate)}/s" if rate else ""
        yield f"{format_bytes(done)}{size} pulled{speed}{f', {age(left)} left' if left else ''}"
    pin = get_str(model, "status", "source", "pin")
    if pin:
        yield f"{get_str(model, 'status', 'source', 'uri')} is {shortened(pin, 80)}"


def _placement(model: JsonObject) -> Iterator[str]:
    why = get_str(model, "status", "placement", "why")
    if why:
        yield shortened(why, 2 * _LENGTH)


def _demand(model: JsonObject, now: float) -> Iterator[str]:
    waiting = [entry for entry in get_objects(model, "status", "demand") if get_int(entry, "waiting")]
    if waiting:
        since = (parse_timestamp(get_str(entry, "oldest")) for entry in waiting)
        oldest = min((moment for moment in since if moment is not None), default=now)
        yield f"{sum(get_int(entry, 'waiting') for entry in waiting)}, the oldest since {age(now - oldest)}"


def _pod(pod: JsonObject, now: float) -> str:
    created = parse_timestamp(get_str(pod, "metadata", "creationTimestamp")) or now
    where = get_str(pod, "spec", "nodeName") or "no node yet"
    state = f"{get_str(pod, 'status', 'phase')}, {where}, {age(now - created)}"
    reasons = "; ".join(pod_problems(pod))
    return f"{get_str(pod, 'metadata', 'name')}: {state}{f': {shortened(reasons, _LENGTH)}' if reasons else ''}"


def pod_problems(pod: JsonObject) -> Iterator[str]:
    """Yield what a pod waits for and why its containers ended."""
    for item in get_objects(pod, "status", "conditions"):
        if get_str(item, "type") == "PodScheduled" and get_str(item, "status") == "False":
            yield get_str(item, "message") or get_str(item, "reason")
    for name in ("initContainerStatuses", "containerStatuses"):
        for container in get_objects(pod, "status", name):
            for state in ("state", "lastState"):
                yield from _container_problems(container, state)


def _container_problems(container: JsonObject, state: str) -> Iterator[str]:
    name = get_str(container, "name")
    waiting, ended = get_object(container, state, "waiting"), get_object(container, state, "terminated")
    if get_str(waiting, "reason") not in ("", "ContainerCreating", "PodInitializing"):
        yield f"{name} waits: {get_str(waiting, 'reason')} {get_str(waiting, 'message')}".rstrip()
    if ended and get_int(ended, "exitCode"):
        text = get_str(ended, "message") or get_str(ended, "reason")
        yield f"{name} ended with status {get_int(ended, 'exitCode')}: {text}"


def _event(event: JsonObject, now: float) -> str:
    count = get_int(event, "series", "count") or get_int(event, "count")
    times = f" ({count} times)" if count > 1 else ""
    message = shortened(get_str(event, "message") or get_str(event, "note"), _LENGTH)
    of = get_str(event, "involvedObject", "kind")
    return f"{age(now - event_time(event))} ago {get_str(event, 'reason')} ({of}): {message}{times}"


def _hidden(kinds: Sequence[str]) -> Iterator[str]:
    for kind in kinds:
        yield f"You may not list {kind} in this namespace, so they are missing above."
