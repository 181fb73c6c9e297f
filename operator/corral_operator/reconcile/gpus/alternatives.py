"""The ways to run a model, best first: on one GPU, on all GPUs of a node, partly on GPUs, on the CPU.

- ``gpu.count: auto``: one GPU with several parallel requests, one with one, all GPUs of a node with several, with one,
  the part that fits on GPUs, the CPU; the last two as ``gpu.offload`` allows. With ``OLLAMA_SCHED_SPREAD`` all GPUs of
  a node come before one. A given count is taken as it is, and never replaced by the CPU.
- A way that no GPU in the cluster has the memory for is not listed; a note with the numbers is there instead. Whether a
  node admits the pod is not decided here.
- Of several resources, the one whose GPUs are the smallest that suffice is first: large ones stay for large models.
- With an automatic context length a way on GPUs comes first with the longest context that Ollama has for so much
  memory and that fits on every GPU that the way admits. The context decides on no GPU and on no slot. GPUs that are
  shared with other pods have the default length, since their memory is not the model's alone.
- GPUs whose memory is unknown are only used for a part of a model: the runner then loads what fits.
- The result depends on the kinds of GPUs and not on their number of nodes, so it is the same for a thousand Models of
  equal weights on any number of nodes, and is kept.

KubeAI's pod plan (``internal/modelcontroller/pod_plan.go`` in https://github.com/substratusai/kubeai) is the model for
a pure plan with reasons.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from corral_core.base.quantities import format_bytes
from corral_core.contracts.model_metadata import ModelDimensions
from corral_core.model.accelerator import vendor_of
from corral_core.model.model import GPUSpec
from corral_core.planning.gpus.offers import GpuOffer
from corral_core.planning.gpus.request import (
    GpuRequest,
    is_slice,
    minimum_memory,
    offer_terms,
    unusable,
    usable_offers,
    wants_shared,
)
from corral_core.weights.gpu_fit import GpuFit, fit_on_gpus
from corral_core.weights.load_config import LoadConfig
from corral_core.weights.memory.layer_split import GpuOptions
from corral_core.weights.memory_estimate import ALL_LAYERS, MemoryEstimate, estimate_memory

UNKNOWN_MEMORY = 1
"""Bytes that stand for the memory of a GPU that nothing tells: no layer fits, so the host has memory for all."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A way to run the model; ``gpus`` is None on the CPU. ``why`` describes it with its numbers."""

    estimate: MemoryEstimate
    gpus: GpuRequest | None
    why: str


@dataclass(frozen=True, slots=True)
class WeightsLoad:
    """What the memory of a runner depends on. ``configs`` are the load configs to try, best first.

    ``longer`` are the same with longer contexts, if the context length is automatic (``longer_configs``).
    ``adapters`` is the size of its LoRA adapters in bytes, ``options`` what the Model and the installation set for the
    layers on GPUs.
    """

    dimensions: ModelDimensions
    configs: tuple[LoadConfig, ...]
    adapters: int = 0
    options: GpuOptions = ALL_LAYERS
    longer: tuple[tuple[int, tuple[LoadConfig, ...]], ...] = ()

    def estimate(self, config: LoadConfig, gpus: int) -> MemoryEstimate:
        """Return the memory with all layers on the GPUs, or as many as the options allow."""
        options = self._options(gpus)
        return estimate_memory(self.dimensions, config, gpus=gpus, adapters=self.adapters, options=options)

    def fit(self, gpus: int, memory: int) -> GpuFit:
        """Return what fits on GPUs of this memory, with the last load config."""
        free, options = [memory] * gpus, self._options(gpus)
        return fit_on_gpus(self.dimensions, self.configs[-1], free, adapters=self.adapters, options=options)

    def kept(self, request: GpuRequest | None, passed: int) -> list[MemoryEstimate]:
        """Return the estimates that a pod with this request may have been made from.

        ``passed`` is the context length that was passed to the runner, 0 for none.
        """
        if request is not None and request.capacity:
            return [self.fit(request.count, request.capacity).estimate]
        longer = [config for _, configs in self.longer for config in configs if config.context_length == passed]
        return [
            self.estimate(config, request.count if request is not None else 0)
            for config in (longer if passed else self.configs)
        ]

    def _options(self, gpus: int) -> GpuOptions:
        """Return the options; shares are for their own number of GPUs."""
        return self.options if len(self.options.shares) == gpus else replace(self.options, shares=())


class Alternatives:
    """Alternatives, and notes on what is left out, in order; computed as far as they are read, and once."""

    def __init__(self, found: Iterator[Alternative | str]) -> None:
        self._found = found
        self._known: list[Alternative | str] = []

    def __iter__(self) -> Iterator[Alternative | str]:
        yield from self._known
        while (following := next(self._found, None)) is not None:
            self._known.append(following)
            yield following


@lru_cache(maxsize=4096)
def alternatives(gpu: GPUSpec, load: WeightsLoad, offers: frozenset[GpuOffer], *, spread: bool = False) -> Alternatives:
    """Return the ways to run the model on the kinds of GPUs in ``offers``, each of them on at least one node."""
    return Alternatives(_Search(gpu, load, offers, spread=spread).found())


def requested_as_given(gpu: GPUSpec) -> GpuRequest | None:
    """Return the request of a Model whose weights are unknown: the count that it sets, or None."""
    if not gpu.fixed_count or gpu.on_cpu:
        return None
    return GpuRequest(gpu.known_resource, gpu.fixed_count, spec=gpu_spec_digest(gpu))


@lru_cache(maxsize=4096)
def gpu_spec_digest(gpu: GPUSpec) -> str:
    """Return what identifies the fields of ``spec.gpu``."""
    text = json.dumps(gpu.model_dump(mode="json", by_alias=True), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Search:
    def __init__(self, gpu: GPUSpec, load: WeightsLoad, offers: Iterable[GpuOffer], *, spread: bool) -> None:
        self._gpu, self._load, self._spread = gpu, load, spread
        self._offers = sorted(offers, key=_order)
        self._usable = usable_offers(gpu, self._offers)
        self._minimum = minimum_memory(gpu)
        self._digest = gpu_spec_digest(gpu)

    def found(self) -> Iterator[Alternative | str]:
        if not self._gpu.on_cpu:
            yield from self._unusable()
            for counts in self._levels():
                for config in self._load.configs:
                    yield from self._on_gpus(config, counts)
            if self._gpu.offload == "auto":
                yield from self._partly()
            if self._gpu.fixed_count or self._gpu.offload == "full":
                yield self._least()
                return
        for config in self._load.configs:
            yield Alternative(self._load.estimate(config, 0), None, f"on the CPU{_parallel(config)}")

    def _unusable(self) -> Iterator[str]:
        if not self._offers:
            yield "no node offers GPUs"
        reasons: dict[str, None] = {}
        for offer in self._offers:
            reason = unusable(self._gpu, offer)
            if reason:
                reasons[f"not {_named(offer)}: {reason}"] = None
        yield from list(reasons)[:4]

    def _levels(self) -> list[list[int]]:
        """Return the numbers of GPUs to try; one load config is tried for all numbers of a level before the next."""
        if self._gpu.fixed_count:
            return [[self._gpu.fixed_count]]
        several = sorted({offer.count for offer in self._usable if offer.count > 1 and not is_slice(offer)})
        if wants_shared(self._gpu) or self._gpu.split_mode == "none" or not several:
            return [[1]]
        return [several[::-1], [1]] if self._spread else [[1], several]

    def _on_gpus(self, config: LoadConfig, counts: list[int]) -> Iterator[Alternative | str]:
        """Yield the alternatives with all layers on GPUs, or why there is none."""
        notes = []
        for count in counts:
            estimate = self._load.estimate(config, count)
            need = max(max(estimate.devices), self._minimum)
            fitting = [one for one in self._with_units(count) if (one.memory or 0) >= need]
            for same in _by_resource(fitting):
                for each in self._contexts(estimate, count, same):
                    size = max(each.devices)
                    terms = offer_terms(self._gpu, same, memory=max(size, self._minimum))
                    request = GpuRequest(same[0].resource, count, size, terms)
                    yield self._alternative(each, request, f"on {_units(request)}{_parallel(each.load_config)}")
            if not fitting and self._usable:
                notes.append(self._too_small(count, need))
        if notes and len(notes) == len(counts):
            yield f"{notes[-1]}{_parallel(config)}"

    def _contexts(self, estimate: MemoryEstimate, count: int, offers: Sequence[GpuOffer]) -> Iterator[MemoryEstimate]:
        """Yield the estimates with the longer contexts that fit all of these GPUs, then the given one."""
        memory = min(one.memory or 0 for one in offers)
        index = self._load.configs.index(estimate.load_config)
        for needed, configs in () if wants_shared(self._gpu) else self._load.longer:
            longer = self._load.estimate(configs[index], count)
            if count * memory >= needed and max(longer.devices) <= memory:
                yield longer
        yield estimate

    def _with_units(self, count: int) -> list[GpuOffer]:
        """Return the offers of nodes with so many GPUs; several are all of a node, or the number that is given."""
        given = self._gpu.fixed_count or 1
        whole = {one.resource for one in self._usable if one.count == count or count == given}
        usable = (one for one in self._usable if one.count >= count and one.resource in whole)
        return [one for one in usable if count == 1 or not is_slice(one)]

    def _too_small(self, count: int, need: int) -> str:
        several = self._with_units(count)
        what = f"{count} GPUs need {format_bytes(need)} on each" if count > 1 else f"one GPU needs {format_bytes(need)}"
        if not several:
            return f"{what}, and the most GPUs of a node are {max(one.count for one in self._usable)}"
        known = [one.memory for one in several if one.memory is not None]
        return (
            f"{what}, and the largest has {format_bytes(max(known))}" if known else f"{what}, their memory is unknown"
        )

    def _partly(self) -> Iterator[Alternative | str]:
        """Yield the alternatives with the layers on GPUs that fit there, most layers first."""
        found = []
        for offer in self._usable:
            one_unit = wants_shared(self._gpu) or is_slice(offer)
            count = self._gpu.fixed_count or (1 if one_unit else offer.count)
            if count > (1 if is_slice(offer) else offer.count):
                continue
            known = offer.memory is not None
            count = count if known or self._gpu.fixed_count else 1
            layers, part = self._part(offer, count)
            if layers or not known or self._gpu.fixed_count:
                found.append((layers, part))
        yield from (one for _, one in sorted(found, key=lambda each: -each[0]))

    def _part(self, offer: GpuOffer, count: int) -> tuple[int, Alternative]:
        """Return the number of layers and the alternative, with no layer for unknown memory."""
        memory = offer.memory or 0
        fit = self._load.fit(count, memory or UNKNOWN_MEMORY)
        bytes_each = max(fit.estimate.devices) if memory and fit.layers else memory
        terms = offer_terms(self._gpu, [offer], memory=memory)
        request = GpuRequest(offer.resource, count, bytes_each, terms, capacity=memory or UNKNOWN_MEMORY)
        part = f"{fit.layers} of {fit.total_layers} layers" if memory else "the layers that fit"
        reason = f" ({fit.reason})" if fit.reason and memory else ""
        why = f"{part} on {_units(request)}, the rest on the CPU{_parallel(self._load.configs[-1])}{reason}"
        return fit.layers, self._alternative(fit.estimate, request, why)

    def _least(self) -> Alternative:
        """Return the request that needs least of a GPU, whether or not any has it; it says what is missing."""
        config, count = self._load.configs[-1], self._gpu.fixed_count or 1
        estimate = self._load.estimate(config, count)
        offers = self._usable or [GpuOffer(self._gpu.known_resource, count, count)]
        need = max(max(estimate.devices), self._minimum)
        known = [one for one in offers if one.memory is not None]
        terms = offer_terms(self._gpu, known or offers, memory=need if known else 0)
        request = GpuRequest(offers[0].resource, count, max(estimate.devices), terms)
        return self._alternative(estimate, request, f"on {_units(request)}{_parallel(config)}")

    def _alternative(self, estimate: MemoryEstimate, request: GpuRequest, why: str) -> Alternative:
        return Alternative(estimate, replace(request, spec=self._digest), why)


def _by_resource(offers: Iterable[GpuOffer]) -> list[list[GpuOffer]]:
    """Return the offers of each resource, that with the smallest GPUs first."""
    groups: dict[str, list[GpuOffer]] = {}
    for offer in offers:
        groups.setdefault(offer.resource, []).append(offer)
    return sorted(groups.values(), key=lambda group: (min(one.memory or 0 for one in group), _order(group[0])))


def _order(offer: GpuOffer) -> tuple[bool, str, int, int]:
    """Order GPUs of known vendors first: for others nothing tells the memory, and one backend serves all of them."""
    return vendor_of(offer.resource) is None, offer.resource, offer.memory or 0, offer.count


def _named(offer: GpuOffer) -> str:
    memory = f" of {format_bytes(offer.memory)}" if offer.memory is not None else " of unknown memory"
    shared = f" ({offer.sharing})" if offer.sharing != "none" else ""
    return f"{offer.resource}{memory}{shared}"


def _units(request: GpuRequest) -> str:
    each = " each" if request.count > 1 else ""
    memory = f" with {format_bytes(request.memory)} on{each or ' it'}" if request.memory else ""
    return f"{request.count} {request.resource}{memory}"


def _parallel(config: LoadConfig) -> str:
    if not config.generates:
        return ""
    context = f" of {config.context_length} tokens" if config.context_passed else ""
    return f" for {config.parallel} parallel request{'s' if config.parallel > 1 else ''}{context}"
