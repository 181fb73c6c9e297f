"""Stands in for the reading of weights that are not there: Models of simulated pods have a source but no file."""

from __future__ import annotations

import json

from corral_core.facts import ModelFacts
from corral_core.packed import pack
from corral_core.resource import parse_served
from corral_core.shape import Shape
from corral_core.weights import about
from tests.cluster.api import Object, at

_RUNNER = "test.corral.dev/runner"
_INSPECTS = "corral.dev/inspects"
_FACTS = ModelFacts(
    size=1 << 20,
    family="llama",
    families=("llama",),
    parameter_size="1M",
    parameter_count=10**6,
    quantization_level="Q4_0",
    context_length=512,
    embedding_length=64,
    capabilities=("completion",),
    template="",
    shape=Shape(1 << 20, layers=1, embedding=64, vocabulary=256, keys=64, values=64),
)


def is_simulated_inspector(pod: Object) -> bool:
    """Whether it reads weights, has a node, has not ended, and runs no real process."""
    annotations = at(pod, "metadata", "annotations")
    if not isinstance(annotations, dict) or _INSPECTS not in annotations or _RUNNER in annotations:
        return False
    waits = at(pod, "status", "phase") != "Succeeded" and at(pod, "metadata", "deletionTimestamp") is None
    return waits and at(pod, "spec", "nodeName") is not None


def made_up_facts(pod: Object) -> str:
    """The last words of an inspector, about the source that it was told to read."""
    return pack(made_up(_spec(pod)))


def made_up(spec: Object) -> ModelFacts:
    """Facts of a small model that was read from the spec's source."""
    return about(_FACTS, parse_served({"name": "made-up", "namespace": "default", "spec": spec}).spec, 0)


def _spec(pod: Object) -> Object:
    variables = at(pod, "spec", "containers", 0, "env")
    named = {at(item, "name"): at(item, "value") for item in (variables if isinstance(variables, list) else [])}
    spec = json.loads(str(named["CORRAL_MODEL"]).replace("$$", "$"))["spec"]
    assert isinstance(spec, dict)
    return spec
