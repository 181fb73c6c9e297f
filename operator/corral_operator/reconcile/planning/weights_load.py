"""Load configs of a Model's runners and what else their memory depends on, by its spec, its source and the settings."""

from __future__ import annotations

from dataclasses import replace

from corral_core.base.errors import InvalidSetting
from corral_core.base.json_fields import get_str
from corral_core.contracts.model_metadata import ModelMetadata
from corral_core.contracts.packed_defaults import source_defaults
from corral_core.model.effective_spec import effective_spec
from corral_core.model.model import Model
from corral_core.weights.load_config import (
    LoadRequest,
    configs_with_context,
    load_configs,
    load_request,
    longer_configs,
)
from corral_core.weights.memory.layer_split import GpuOptions
from corral_operator.config import RunnerDefaults
from corral_operator.reconcile.gpus.alternatives import WeightsLoad


def weights_load(
    model: Model, metadata: ModelMetadata, defaults: RunnerDefaults, *, resource: str | None, passed: int = 0
) -> WeightsLoad:
    """Return the load configs that the Model allows, the preferred first, and what else the memory depends on.

    ``passed`` is a context length in place of the Model's, 0 for the Model's own.
    ``resource`` is that of the GPUs for which the installation has settings, None on the CPU. Raises ValueError without
    dimensions.
    """
    if metadata.dimensions is None:
        raise ValueError("the dimensions of the weights are not known")
    model = _with_source(model, metadata)
    request = _load_request(model, defaults, resource)
    layers = model.spec.parameters.get("num_gpu", -1)
    gpu = model.spec.gpu
    options = GpuOptions(
        layers if layers >= 0 else None, gpu.tensor_split or (), gpu.expert_layers_on_cpu, defaults.gpu_overhead
    )
    configs = configs_with_context(request, metadata, passed) if passed else load_configs(request, metadata)
    longer = () if passed else longer_configs(request, metadata)
    return WeightsLoad(metadata.dimensions, configs, metadata.adapters_size, options, longer)


def _with_source(model: Model, metadata: ModelMetadata) -> Model:
    """Return the Model as its runner reads it, with the parameters that the source brings."""
    if not metadata.source_defaults:
        return model
    return replace(model, spec=effective_spec(model.spec, source_defaults(metadata)))


def _load_request(model: Model, defaults: RunnerDefaults, resource: str | None) -> LoadRequest:
    """Return what the runner will read in its environment; the runner itself reports a value that it rejects."""
    of_gpu = defaults.gpu_pod(resource).env if resource is not None else []
    variables = (*defaults.env, *of_gpu, *model.spec.pod.env)
    overrides = {get_str(item, "name"): get_str(item, "value") for item in variables if "value" in item}
    try:
        return load_request(model.spec, {**defaults.settings, **overrides})
    except InvalidSetting:
        return load_request(model.spec, defaults.settings)
