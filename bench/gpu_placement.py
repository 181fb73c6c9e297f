"""Which GPUs 1,000 Models get on 200 nodes of four kinds, checked against a search over every node.

    python -m bench.gpu_placement [--nodes 200] [--models 1000]

- The nodes have 8 NVIDIA GPUs each, with the labels of GPU feature discovery: L4, A100, A100 as MIG slices, and
  time-sliced T4. The Models have 1 to 700 GiB of weights; a tenth of them is shared.
- The reference computes the memory for every node and number of GPUs by itself, and says what is the best that any node
  can run. A placement is right if it is that, and if exactly the nodes that have the memory match the pod's affinity.
- Beside it: KubeAI's resource profiles, which a person chooses. Here the one with the smallest GPUs that hold the
  weights file is chosen, as its documentation does; it counts the Models whose whole memory is more than that.

Planning is timed without an API server; ``tests/cluster/test_gpu_placement.py`` shows the scheduler's side.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from corral_core.model.model import Model
from corral_core.model.resource import parse_model
from corral_core.planning.gpus.offers import NO_SHARING
from corral_core.planning.node import Node
from corral_core.planning.node_fit import matches_labels
from corral_core.weights.memory_estimate import estimate_memory
from corral_operator.config import RunnerDefaults
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.reconcile import manifests
from corral_operator.reconcile.planning.load_choice import choose_load
from corral_operator.report.load import LoadChoice
from tests.operator import samples
from tests.support.gpu_samples import CONFIGS, GPU, MIG, NodeKind, dimensions, gpu_kind

KINDS = (
    gpu_kind(GPU, 8, 23034, "NVIDIA-L4", minor=9),
    gpu_kind(GPU, 8, 81920, "NVIDIA-A100-SXM4-80GB"),
    gpu_kind(MIG, 16, 19968, "NVIDIA-A100-SXM4-40GB-MIG-3g.20gb"),
    gpu_kind(GPU, 8, 15360, "Tesla-T4", replicas=4, major=7, minor=5),
)
SIZES = (1, 4, 8, 14, 17, 18.5, 21, 30, 40, 65, 75, 79, 90, 140, 200, 400, 700)
"""GiB of weights."""
MIB = 2**20


@dataclass(frozen=True, slots=True)
class Case:
    model: Model
    size: float
    shared: bool


def cases(count: int) -> list[Case]:
    rng = random.Random(1)
    made = []
    for index in range(count):
        size, shared = rng.choice(SIZES) * rng.uniform(0.97, 1.03), rng.random() < 0.1
        gpu = {"sharing": "shared"} if shared else {}
        made.append(Case(parse_model(samples.model(f"m{index}", spec={"gpu": gpu})), size, shared))
    return made


def state_of(nodes: int, models: Sequence[Case]) -> ClusterState:
    state = ClusterState()
    raws = []
    for index in range(nodes):
        kind: NodeKind = KINDS[index % len(KINDS)]
        raw = samples.node(f"n{index}", memory="1Ti", devices=kind.resources)
        raws.append(samples.with_metadata(raw, labels=dict(kind.labels)))
    objects = []
    for each in models:
        metadata = replace(samples.METADATA, dimensions=dimensions(each.size))
        spec = {"gpu": {"sharing": each.model.spec.gpu.sharing}}
        objects.append(samples.model(each.model.name, spec=spec, status={"model": metadata.to_json()}))
    state.replace(Kind.MODELS, objects, "10")
    state.replace(Kind.NODES, raws, "10")
    state.replace(Kind.OTHER_PODS, [], "10")
    return state


def reference(each: Case, nodes: Sequence[Node]) -> tuple[str, int, int, frozenset[str]] | None:
    """Return resource, GPUs, parallel requests and the nodes of the best way with all layers; None without one."""
    dims = dimensions(each.size)
    need = {}
    for level in ("one", "all"):
        for config in CONFIGS:
            found: dict[tuple[int, int, str, int], set[str]] = {}
            for node in nodes:
                for offer in node.gpus:
                    count = 1 if level == "one" else offer.count
                    if (offer.sharing != NO_SHARING) != each.shared or offer.memory is None:
                        continue
                    if (count, config) not in need:
                        need[count, config] = max(estimate_memory(dims, config, gpus=count).devices)
                    if level == "all" and (each.shared or count == 1 or offer.resource == MIG):
                        continue
                    if offer.memory >= need[count, config]:
                        found.setdefault((count, 0, offer.resource, offer.memory), set()).add(node.name)
            if found:
                count, _, resource, _ = min(found, key=lambda one: (one[0], one[3], one[2]))
                names = {name for one, several in found.items() if one[2] == resource for name in several}
                return resource, count, config.parallel, frozenset(names)
    return None


def is_right(each: Case, load: LoadChoice, nodes: Sequence[Node]) -> bool:
    best = reference(each, nodes)
    if best is None:
        return load.gpus is None or load.gpus.capacity > 0
    if load.gpus is None or load.gpus.capacity or load.estimate is None:
        return False
    made = (load.gpus.resource, load.gpus.count, load.estimate.load_config.parallel)
    if made != best[:3]:
        return False
    template = manifests.deployment(each.model, 1, defaults=RunnerDefaults(), load=load)
    state = ClusterState()
    state.apply(Kind.DEPLOYMENTS, {**template, "metadata": samples.owned(each.model.name, "d")["metadata"]})
    requirements = state.requirements(each.model.key)
    if requirements is None:
        return False
    offering = [node for node in nodes if node.max_allocatable.get(load.gpus.resource, 0) >= load.gpus.count]
    return frozenset(node.name for node in offering if matches_labels(node, requirements)) == best[3]


def profile_fits(each: Case) -> bool | None:
    """Whether the model fits the GPUs of the profile that its file size suggests; None if none is large enough."""
    for count in (1, 2, 4, 8):
        for kind in sorted(KINDS[:2], key=lambda one: int(one.labels[f"{GPU}.memory"])):
            memory = int(kind.labels[f"{GPU}.memory"]) * MIB
            if count * memory >= each.size * 2**30:
                return max(estimate_memory(dimensions(each.size), CONFIGS[0], gpus=count).devices) <= memory
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=200)
    parser.add_argument("--models", type=int, default=1000)
    arguments = parser.parse_args()
    models = cases(arguments.models)
    state = state_of(arguments.nodes, models)
    nodes = [known.node for known in state.nodes()]
    started = time.perf_counter()
    loads = [choose_load(state, each.model, defaults=RunnerDefaults(), current=None) for each in models]
    seconds = time.perf_counter() - started
    again = time.perf_counter()
    for each in models:
        choose_load(state, each.model, defaults=RunnerDefaults(), current=None)
    repeated = time.perf_counter() - again
    first = {f"n{index}" for index in range(len(KINDS))}
    kinds = [node for node in nodes if node.name in first]  # all others are alike
    wrong = [each for each, load in zip(models, loads, strict=True) if not is_right(each, load, kinds)]
    ways = Counter(
        "cpu"
        if load.gpus is None
        else f"{'part on ' if load.gpus.capacity else ''}{load.gpus.count} {load.gpus.resource}"
        for load in loads
    )
    for way, number in ways.most_common():
        print(f"{number:5} Models: {way}")
    for each in wrong[:5]:
        print(f"wrong: {each.size:.1f} GiB, shared {each.shared}")
    exclusive = [profile_fits(each) for each in models if not each.shared]
    result = {
        "models": len(models),
        "nodes": len(nodes),
        "right": len(models) - len(wrong),
        "seconds": round(seconds, 2),
        "repeated_seconds": round(repeated, 2),
        "profile_does_not_fit": exclusive.count(False),
        "no_profile": exclusive.count(None),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
