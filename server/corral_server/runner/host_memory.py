"""Whether the weights fit the container's memory, asked before they are loaded: the kernel would kill the process.

What always holds: without a limit nothing is refused, and nothing is that could work: only what a load cannot do
without is held against the limit. With GPUs nothing is held against it at all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from corral_core.estimate import MIB, Estimate, estimate
from corral_core.facts import ModelFacts
from corral_core.load import Wish, loads
from corral_server.runner.cgroups import ROOT, SELF, memberships, upwards, words
from corral_server.runner.contexts import EngineOptions
from corral_server.runner.generation import LoadFailed

_NO_LIMIT = 1 << 60
"""Version 1 writes a number near 2 to the power of 63 where there is no limit."""


@dataclass(frozen=True, slots=True)
class HostMemory:
    """Bytes: a container's ``limit``, and how many of them are ``used``, files in the page cache not counted."""

    limit: int
    used: int

    @property
    def free(self) -> int:
        return max(0, self.limit - self.used)


def host_memory(root: Path = ROOT, membership: Path = SELF) -> HostMemory | None:
    """The limit that leaves least, of all on the way up to the root; None without any."""
    return min(_limits(root, membership), key=lambda memory: memory.free, default=None)


def fitted(options: EngineOptions, facts: ModelFacts, *, memory: HostMemory | None) -> EngineOptions:
    """The options with as many slots as fit, where that is left open. Raises LoadFailed with the numbers."""
    if memory is None or facts.shape is None or options.gpu_layers:
        return options
    made = None
    for way in loads(_wish(options), facts):
        made = estimate(facts.shape, way, adapters=facts.adapters_size)
        if made.engine <= memory.free:
            return replace(options, slots=way.parallel) if way.generates else options
    if made is not None and _least(made) > memory.free:
        raise LoadFailed(
            f"the model does not fit the container's memory: it needs {made}; of the limit of "
            f"{memory.limit // MIB} MiB {memory.free // MIB} MiB are free"
        )
    return replace(options, slots=options.slots or 1)


def _wish(options: EngineOptions) -> Wish:
    embeddings = options.embedding is not None
    return Wish(
        options.context_length,
        options.slots,
        options.batch,
        options.cache_type,
        options.flash_attention,
        embeddings=embeddings,
        draft=options.draft,
    )


def _least(made: Estimate) -> int:
    """Weights, adapters and KV cache are known; what computing takes is estimated high."""
    return made.weights + made.adapters + made.kv + (made.graph + made.embedding) // 2


def _limits(root: Path, membership: Path) -> Iterator[HostMemory]:
    for hierarchy, controllers, path in memberships(membership):
        if hierarchy == "0":
            found = (_memory(folder, "memory.max", "memory.current", "") for folder in upwards(root, path))
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
            found = (_memory(folder, *names) for folder in upwards(root / "memory", path))
        else:
            continue
        yield from (memory for memory in found if memory is not None)


def _memory(folder: Path, limit: str, used: str, prefix: str) -> HostMemory | None:
    most, now = _number(words(folder / limit)), _number(words(folder / used))
    if most is None or now is None or most >= _NO_LIMIT:
        return None
    stat = words(folder / "memory.stat")
    numbers = dict(zip(stat[::2], stat[1::2], strict=False))
    files = sum(_number([numbers.get(f"{prefix}{kind}_file", "0")]) or 0 for kind in ("active", "inactive"))
    return HostMemory(most, max(0, now - files))


def _number(said: list[str]) -> int | None:
    return int(said[0]) if len(said) == 1 and said[0].isascii() and said[0].isdigit() else None
