"""Node affinity of GPU requests: which nodes the scheduler may choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from corral_core.base.quantities import resource_amounts
from corral_core.model.model import GPUSpec
from corral_core.planning.affinity import NodeSelectorRequirement, NodeSelectorTerm, NodeSelectorTerms
from corral_core.planning.gpus.offers import gpu_offers
from corral_core.planning.gpus.request import GpuRequest, and_terms, offer_terms, usable_offers
from tests.support.gpu_samples import A100, L4, MIG, SHARED, SLICES, NodeKind, gpu_kind

GIB = 2**30
MPS = NodeKind(
    {"nvidia.com/gpu": "4"},
    {
        "nvidia.com/gpu.memory": "40960",
        "nvidia.com/gpu.replicas": "4",
        "nvidia.com/gpu.sharing-strategy": "mps",
        "nvidia.com/gpu.product": "NVIDIA-A100-SHARED",
    },
)
AMD = NodeKind({"amd.com/gpu": "8"}, {"amd.com/gpu.vram": "192G", "amd.com/gpu.product-name": "MI300X"})
KINDS = {"L4": L4, "A100": A100, "slices": SLICES, "shared": SHARED, "MPS": MPS, "AMD": AMD, "bare": NodeKind({}, {})}


def terms(memory: int, resource: str = "nvidia.com/gpu", **gpu: object) -> NodeSelectorTerms:
    """Return the terms for the offers of all kinds of nodes that the fields admit and that have the memory."""
    spec = GPUSpec.model_validate(gpu, by_name=True)
    offers = [one for kind in KINDS.values() for one in gpu_offers(resource_amounts(kind.resources), kind.labels)]
    usable = [one for one in usable_offers(spec, offers) if (one.memory or 0) >= memory and one.resource == resource]
    return offer_terms(spec, usable, memory=memory)


def admitted(chosen: NodeSelectorTerms, resource: str = "nvidia.com/gpu") -> set[str]:
    """Return the kinds of nodes that offer the resource and match a term."""
    return {
        name
        for name, kind in KINDS.items()
        if resource in kind.resources and any(term.matches(name, kind.labels) for term in chosen)
    }


@pytest.mark.parametrize(
    ("gibibytes", "gpu", "kinds"),
    [
        (8, {}, {"L4", "A100"}),
        (30, {}, {"A100"}),
        (12, {"sharing": "shared"}, {"shared"}),
        (8, {"sharing": "shared"}, {"shared", "MPS"}),
        (8, {"product": "NVIDIA-L4"}, {"L4"}),
        (8, {"compute_capability": "8.9"}, {"L4"}),
        (8, {"compute_capability": "8.0"}, {"L4", "A100"}),
        (8, {"sharing": "shared", "product": "Tesla-T4"}, {"shared"}),
    ],
)
def test_the_terms_admit_the_nodes_on_which_it_fits(gibibytes: int, gpu: Mapping[str, Any], kinds: set[str]) -> None:
    assert admitted(terms(gibibytes * GIB, **gpu)) == kinds


def test_a_node_that_joins_later_is_admitted_by_its_memory() -> None:
    later = gpu_kind("nvidia.com/gpu", 8, 143_771, "NVIDIA-H200")
    small = gpu_kind("nvidia.com/gpu", 8, 8192, "Tesla-P4")
    chosen = terms(30 * GIB)
    assert any(term.matches("later", later.labels) for term in chosen)
    assert not any(term.matches("small", small.labels) for term in chosen)


def test_the_memory_is_met_to_the_mebibyte() -> None:
    exact = terms(23034 * 2**20)
    assert admitted(exact) == {"L4", "A100"}
    assert admitted(terms(23034 * 2**20 + 1)) == {"A100"}


def test_slices_and_other_vendors_have_terms_by_their_own_labels() -> None:
    assert admitted(terms(8 * GIB, MIG), MIG) == {"slices"}
    assert admitted(terms(8 * GIB, "amd.com/gpu"), "amd.com/gpu") == {"AMD"}
    assert admitted(terms(8 * GIB, "amd.com/gpu", product="MI300X"), "amd.com/gpu") == {"AMD"}


def requirement(key: str) -> NodeSelectorRequirement:
    return NodeSelectorRequirement(key, "Exists")


def test_terms_are_combined_so_that_one_of_each_must_match() -> None:
    own = (NodeSelectorTerm((requirement("a"),)), NodeSelectorTerm((), (requirement("f"),)))
    added = (NodeSelectorTerm((requirement("x"),)), NodeSelectorTerm((requirement("y"),)))
    combined = and_terms(own, added)
    assert [tuple(each.key for each in term.match_expressions) for term in combined] == [
        ("a", "x"),
        ("a", "y"),
        ("x",),
        ("y",),
    ]
    assert [len(term.match_fields) for term in combined] == [0, 0, 1, 1]
    assert and_terms(None, added) == added
    assert and_terms(own, ()) == own


def test_an_empty_term_of_the_model_still_matches_nothing() -> None:
    added = (NodeSelectorTerm((requirement("x"),)),)
    assert not any(term.matches("n", {"x": "1"}) for term in and_terms((NodeSelectorTerm(),), added))


def test_a_request_survives_its_annotation() -> None:
    request = GpuRequest("nvidia.com/gpu", 2, 7, terms(30 * GIB), capacity=9, spec="digest")
    assert GpuRequest.from_json(request.to_json()) == request
    assert GpuRequest.from_json({}) is None
    for count in ("many", 0, -1, 257, 10**12):
        assert GpuRequest.from_json({"resource": "a", "count": count}) is None
