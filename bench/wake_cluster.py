"""Cold start on a real node, compared with the baseline: the same Deployment scaled without Corral.

Each round starts the Model once and the baseline once, so that both see the same machine. The baseline is a copy of the
Model's Deployment that operator and gateways ignore. It is scaled by one request to the API server, and its pod gets
the request directly as soon as it is ready. Both start at zero pods, with the images on the node and the weights in the
page cache; the first round is a warm-up. Times are seconds since the request (or the scaling), as a watch of the API
server observes them. The client's preparations do not count: both sides have an open connection before the time begins
(creating a client with a TLS context alone takes Python 30 ms or more).

    python bench/wake_cluster.py [--rounds N]

Needs what the tests on a real node need (docs/development.md). The last line is a JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.cluster.api import Api, Object, at, condition
from tests.cluster.tools import programs
from tests.node import images
from tests.node.real_cluster import NEEDED, missing, open_cluster
from tests.node.release import MODELS_NAMESPACE, NAMESPACE, Release
from tests.support.waiting import until

MODEL, FLOOR = "smol", "floor"
STEPS = ("demand", "scaled", "pod_object", "scheduled", "started", "ready", "first_token")
_DEPLOYMENTS = f"/apis/apps/v1/namespaces/{MODELS_NAMESPACE}/deployments"
_PODS = f"/api/v1/namespaces/{MODELS_NAMESPACE}/pods"
_MODELS = f"/apis/corral.dev/v1alpha1/namespaces/{MODELS_NAMESPACE}/models"
_ASK = {"model": MODEL, "prompt": "Name three colours.", "options": {"num_predict": 2, "temperature": 0}}

Row = dict[str, float]


@dataclass
class Watcher:
    """Records every change with the time at which the watch delivered it. Its threads end with the process."""

    api: Api
    seen: list[tuple[float, Object]] = field(default_factory=list)

    def start(self) -> None:
        for path in (_DEPLOYMENTS, _PODS, _MODELS):
            threading.Thread(target=self._run, args=(path,), name=path, daemon=True).start()

    def _run(self, path: str) -> None:
        version = str(at(self.api.get(path), "metadata", "resourceVersion"))
        while True:
            try:
                for _, item in self.api.watch(path, version):
                    self.seen.append((time.monotonic(), item))
                    version = str(at(item, "metadata", "resourceVersion"))
            except OSError:
                return  # the cluster has been shut down


def happened(item: Object, name: str) -> list[str]:
    """Which steps of the wake of ``name`` this state of an object shows."""
    kind, called = at(item, "kind"), at(item, "metadata", "name")
    if kind == "Model" and called == name:
        return ["demand"] if at(item, "status", "demand") else []
    if kind == "Deployment" and called == f"model-{name}":
        return ["scaled"] if at(item, "spec", "replicas") == 1 else []
    if kind != "Pod" or not str(called).startswith(f"model-{name}-"):
        return []
    steps = {
        "pod_object": True,
        "scheduled": at(item, "spec", "nodeName"),
        "started": at(item, "status", "containerStatuses", 0, "state", "running"),
        "ready": condition(item, "Ready").get("status") == "True",
    }
    return [step for step, reached in steps.items() if reached]


def row(watcher: Watcher, name: str, *, start: float, first_token: float) -> Row:
    """When each step was seen first, in seconds since ``start``; a step that was not seen is not a number."""
    until(lambda: any("ready" in happened(item, name) for at_, item in watcher.seen if at_ > start), 30)
    found = dict.fromkeys(STEPS, math.nan)
    for moment, item in reversed([entry for entry in watcher.seen if entry[0] > start]):
        for step in happened(item, name):
            found[step] = moment - start
    return found | {"first_token": first_token - start}


def client() -> httpx.Client:
    return httpx.Client(timeout=300, limits=httpx.Limits(keepalive_expiry=300))


def first_token(asker: httpx.Client, url: str) -> float:
    """Asks, and returns the moment at which the first piece came."""
    with asker.stream("POST", f"{url}/api/generate", json=_ASK) as answer:
        answer.raise_for_status()
        lines = answer.iter_lines()
        next(lines)
        moment = time.monotonic()
        for _ in lines:
            pass
    return moment


def wake_model(release: Release, watcher: Watcher) -> Row:
    with client() as asker:
        asker.get(f"{release.url}/api/version").raise_for_status()
        start = time.monotonic()
        moment = first_token(asker, release.url)
        found = row(watcher, MODEL, start=start, first_token=moment)
        asker.post(f"{release.url}/api/generate", json={"model": MODEL, "keep_alive": 0}).raise_for_status()
    release.wait_gone(MODEL)
    return found


def wake_floor(release: Release, watcher: Watcher) -> Row:
    api = release.cluster.api
    scale = f"{_DEPLOYMENTS}/model-{FLOOR}/scale"
    with client() as asker, api.prepared_patch(scale, {"spec": {"replicas": 1}}) as scale_up:
        start = time.monotonic()
        scale_up()
        address = until(lambda: _address(watcher, start), 120, what="the floor's pod")
        until(lambda: _ready(asker, address), 120, what="the floor's readiness", interval=0.025)
        moment = first_token(asker, address)
    found = row(watcher, FLOOR, start=start, first_token=moment)
    api.patch(scale, {"spec": {"replicas": 0}})
    until(
        lambda: not api.items(_PODS, labelSelector=f"bench={FLOOR}"),
        120,
        what="the end of the floor's pod",
        interval=0.1,
    )
    return found


def _address(watcher: Watcher, start: float) -> str | None:
    """Return the address of the baseline's pod from the watch; a request for it would add to the measured time."""
    for moment, item in watcher.seen:
        address = at(item, "status", "podIP")
        if moment > start and address and str(at(item, "metadata", "name")).startswith(f"model-{FLOOR}-"):
            return f"http://{address}:8080"
    return None


def _ready(asker: httpx.Client, address: str) -> bool:
    try:
        return asker.get(f"{address}/readyz", timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def copy_deployment(api: Api) -> None:
    """Create the baseline: the Model's Deployment with other labels."""
    model = api.get(f"{_DEPLOYMENTS}/model-{MODEL}")
    spec = cast("dict[str, object]", model["spec"])
    template = cast("dict[str, object]", spec["template"])
    labels = {"bench": FLOOR}
    metadata = {"name": f"model-{FLOOR}", "labels": labels}
    pod = {"metadata": {"labels": labels}, "spec": template["spec"]}
    api.create(
        _DEPLOYMENTS,
        {"metadata": metadata, "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": pod}},
    )


def measure(release: Release, rounds: int) -> tuple[list[Row], list[Row]]:
    """Return one row per round of the Model and of the baseline, without the warm-up."""
    watcher = Watcher(release.cluster.api)
    watcher.start()
    woken, floor = [], []
    for number in range(rounds + 1):
        pair = wake_model(release, watcher), wake_floor(release, watcher)
        if number:
            woken.append(pair[0])
            floor.append(pair[1])
            show(f"{number}", pair[0])
            show("floor", pair[1])
        watcher.seen.clear()
    return woken, floor


def show(label: str, figures: Mapping[str, float]) -> None:
    print(f"{label:>10}" + "".join(f"{figures[step]:>13.3f}" for step in STEPS), flush=True)


def percentile(rows: Sequence[Row], share: float) -> Row:
    """The nearest rank of each step."""
    rank = max(0, math.ceil(share * len(rows)) - 1)
    return {step: sorted(line[step] for line in rows)[rank] for step in STEPS}


def ratio(woken: Sequence[Row], floor: Sequence[Row], step: str) -> float:
    """The median of the rounds' ratios."""
    return round(statistics.median(a[step] / b[step] for a, b in zip(woken, floor, strict=True)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description="Cold request to first token on a real node.")
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    if reason := missing() or images.missing():
        sys.exit(f"no node here: {reason}")
    with open_cluster(programs(NEEDED, print), images.archives(print)) as cluster:
        for namespace in (NAMESPACE, MODELS_NAMESPACE):
            cluster.make_namespace(namespace)
        release = Release(cluster)
        release.install()
        release.add(MODEL)
        release.wait_phase(MODEL, "Idle")
        copy_deployment(cluster.api)
        print(f"{'round':>10}" + "".join(f"{step:>13}" for step in STEPS))
        woken, floor = measure(release, rounds)
    for label, rows in (("model", woken), ("floor", floor)):
        show(f"{label} p50", percentile(rows, 0.5))
        show(f"{label} p95", percentile(rows, 0.95))
    middle = {step: round(value, 4) for step, value in percentile(woken, 0.5).items()}
    ratios = {"pod_object_vs_scale": ratio(woken, floor, "pod_object")}
    ratios["first_token_vs_floor"] = ratio(woken, floor, "first_token")
    print(json.dumps({**ratios, **{f"{step}_s": value for step, value in middle.items()}, "rounds": rounds}))


if __name__ == "__main__":
    main()
