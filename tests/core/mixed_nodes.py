"""Simulation of the planner over mixed nodes with arrivals that try to starve one Model.

- Nodes: exclusive GPUs, MIG slices, a time-sliced GPU whose memory is counted, and nodes without GPUs.
- Arrivals come in rounds. In each, small Models that fill all nodes are asked without pause, and large ones, which need
  a whole node or most of a shared GPU, once. Some rounds are quiet, so that everything expires.
- ``World`` asserts at every step: no bytes or devices are given away twice, no pinned Model leaves, no Model leaves for
  a younger request, and a plan that is made again is the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from corral_core.base.durations import FOREVER
from corral_core.planning.node import Node
from corral_core.planning.snapshot import Policy
from tests.core.world import Kind, Land, Request, World
from tests.support.planning import MI, gpu_node, node

MIG = "nvidia.com/mig-1g.5gb"
ROUND = 60
"""Seconds of one pattern of arrivals."""
MAX_WAIT = 2 * ROUND
"""Seconds that no request waits: the requests of two rounds are served in the meantime."""

NODES: tuple[Node, ...] = (
    gpu_node("exclusive", 4, 80),
    node("mig", 1000, taints=(), labels={f"{MIG}.memory": "5"}, **{MIG: 7}),
    gpu_node("shared", 1, 24, replicas=10),
    node("plain", 40),
)

SMALL = (
    *(Kind(f"gpu-{number}", keep_alive=5.0, gpus=1) for number in range(5)),
    *(Kind(f"mig-{number}", keep_alive=60.0, gpus=1, resource=MIG) for number in range(8)),
    *(Kind(f"shared-{number}", keep_alive=1.0, gpus=1, gpu_memory=5 * MI) for number in range(5)),
    *(Kind(f"cpu-{number}", keep_alive=0.0, memory=9) for number in range(5)),
)
LARGE = (
    Kind("whole-node", load_time=5, leave_time=3, gpus=4, memory=500),
    Kind("most-of-a-shared-gpu", load_time=4, gpus=1, gpu_memory=22 * MI),
    Kind("all-slices", load_time=3, gpus=7, resource=MIG, keep_alive=FOREVER),
    Kind("whole-memory", load_time=3, memory=40),
)
PINNED = Kind("pinned", min_replicas=1, gpus=1, resource=MIG)


@dataclass(frozen=True, slots=True)
class Report:
    """Requests, runners that were started, and the longest time that a request of a Model waited, in seconds."""

    requests: int
    started: int
    longest_wait: dict[str, int]


def simulate(seed: int, steps: int) -> Report:
    """Simulate that many seconds and the time until all requests are served."""
    random = Random(seed)
    kinds = (*SMALL, *LARGE) if random.random() < 0.5 else (*SMALL, *LARGE[:2], LARGE[3], PINNED)
    world = World(kinds, 99, [], Land(gpu_nodes=NODES), policy=Policy(eviction_timeout=20, min_residency=2))
    arrivals = _arrivals(random, [kind.key for kind in kinds])
    longest = dict.fromkeys(world.kinds, 0)
    count = 0
    while world.now < steps or world.coming or any(world.waiting.values()) or world.sent():
        if world.now < steps:
            new = next(arrivals)
            world.coming += [Request(key, world.now, lasts) for key, lasts in new]
            count += len(new)
        world.step()
        for request, at in world.served:
            longest[request.model] = max(longest[request.model], at - request.arrives)
        world.served.clear()
        assert world.now < steps + 2000, f"these wait forever: {[key for key, queue in world.waiting.items() if queue]}"
    return Report(count, world.started, longest)


def _arrivals(random: Random, keys: list[str]) -> Iterator[list[tuple[str, int]]]:
    """Yield the Models of the requests of each second, and how long each request lasts."""
    large = [kind.key for kind in LARGE if kind.key in keys]
    small = [key for key in keys if key not in large]
    while True:
        busy, lone = random.random() < 0.8, {random.randrange(ROUND // 2): random.choice(large) for _ in range(2)}
        rate = random.choice((1, 2, 2)) if busy else 0
        for second in range(ROUND):
            asked = [(random.choice(small), random.randint(1, 6)) for _ in range(rate)]
            yield asked + ([(lone[second], random.randint(1, 6))] if second in lone else [])
