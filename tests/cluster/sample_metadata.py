"""Sample metadata for inspectors of simulated pods, whose Models have a source but no weights file."""

from __future__ import annotations

import json

from corral_core.contracts.model_metadata import ModelDimensions, ModelMetadata
from corral_core.contracts.source_resolution import ResolvedPins
from corral_core.contracts.termination_message import encode_metadata
from corral_core.model.remote_sources import remote_sources
from corral_core.model.resource import parse_runner_model
from corral_core.weights.files import with_spec
from tests.cluster.api import Object, at

_RUNNER = "test.corral.dev/runner"
_INSPECTS = "corral.dev/inspects"
_METADATA = ModelMetadata(
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
    dimensions=ModelDimensions(1 << 20, layers=1, embedding=64, vocabulary=256, keys=64, values=64),
)


def is_simulated_inspector(pod: Object) -> bool:
    """Return whether the pod is a scheduled inspector that has not succeeded and runs no real process."""
    annotations = at(pod, "metadata", "annotations")
    if not isinstance(annotations, dict) or _INSPECTS not in annotations or _RUNNER in annotations:
        return False
    pending = at(pod, "status", "phase") != "Succeeded" and at(pod, "metadata", "deletionTimestamp") is None
    return pending and at(pod, "spec", "nodeName") is not None


def sample_termination_message(pod: Object) -> str:
    """Return the termination message of an inspector for the source that it was created for."""
    spec = _spec(pod)
    pins = ("1",) * len(
        remote_sources(parse_runner_model({"name": "sample", "namespace": "default", "spec": spec}).spec)
    )
    return encode_metadata(sample_metadata(spec), ResolvedPins(pins, _METADATA.size) if pins else None)


def sample_metadata(spec: Object) -> ModelMetadata:
    """Return the metadata of a small model with the source of the spec."""
    return with_spec(_METADATA, parse_runner_model({"name": "sample", "namespace": "default", "spec": spec}).spec, 0)


def _spec(pod: Object) -> Object:
    variables = at(pod, "spec", "containers", 0, "env")
    named = {at(item, "name"): at(item, "value") for item in (variables if isinstance(variables, list) else [])}
    spec = json.loads(str(named["CORRAL_MODEL"]).replace("$$", "$"))["spec"]
    assert isinstance(spec, dict)
    return spec
