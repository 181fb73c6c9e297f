"""Resources and probes of the runner container, from the memory estimate."""

from __future__ import annotations

import dataclasses

import pytest

from corral_core.base.durations import FOREVER
from corral_core.base.json_fields import JsonObject, get_objects, get_value
from corral_core.base.settings import timeout_setting
from corral_core.contracts.packed_defaults import with_source_defaults
from corral_core.contracts.source_defaults import SourceDefaults
from corral_core.model.model import Model
from corral_core.model.resource import parse_model
from corral_core.weights.load_config import LoadConfig
from corral_core.weights.memory_estimate import estimate_memory
from corral_operator.config import RunnerDefaults
from corral_operator.reconcile.planning.weights_load import weights_load
from corral_operator.reconcile.runner_pod import pod_spec
from tests.core.weights.test_memory_estimate import SMOLLM2
from tests.operator import samples
from tests.operator.reconcile import loads

METADATA = dataclasses.replace(samples.METADATA, size=98_000_000, source="")


def model(**spec: object) -> Model:
    return parse_model(samples.model(spec=spec))


def container(subject: Model, *, defaults: RunnerDefaults | None = None) -> JsonObject:
    return loads.container(subject, METADATA, defaults=defaults)


def mebibytes(config: LoadConfig) -> str:
    return f"{estimate_memory(SMOLLM2, config).total >> 20}Mi"


def test_the_estimate_is_the_memory_request_and_limit() -> None:
    resources = container(model())["resources"]
    assert resources == {"requests": {"cpu": "250m", "memory": "728Mi"}, "limits": {"memory": "728Mi"}}


@pytest.mark.parametrize(
    ("given", "requests", "limits"),
    [
        ({"requests": {"memory": "1Gi"}}, {"cpu": "250m", "memory": "1Gi"}, {"memory": "1Gi"}),
        ({"requests": {"memory": "100Mi"}}, {"cpu": "250m", "memory": "100Mi"}, {"memory": "728Mi"}),
        ({"limits": {"memory": "1Gi"}}, {"cpu": "250m"}, {"memory": "1Gi"}),
        ({"requests": {"cpu": 2}}, {"cpu": 2, "memory": "728Mi"}, {"memory": "728Mi"}),
        ({"limits": {"cpu": "100m"}}, {"memory": "728Mi"}, {"cpu": "100m", "memory": "728Mi"}),
        ({"limits": {"example.com/x": 1}}, {"cpu": "250m", "memory": "728Mi"}, {"example.com/x": 1, "memory": "728Mi"}),
    ],
)
def test_the_model_overrides_each_amount_separately(given: object, requests: object, limits: object) -> None:
    assert container(model(pod={"resources": given}))["resources"] == {"requests": requests, "limits": limits}


def test_the_estimate_has_the_context_length_that_the_source_brings() -> None:
    brought = with_source_defaults(METADATA, SourceDefaults(parameters={"num_ctx": 1024}))
    subjects = (model(), model(parameters={"num_ctx": 2048}))
    lengths = [
        weights_load(each, brought, RunnerDefaults(), resource=None).configs[0].context_length for each in subjects
    ]
    assert lengths == [1024, 2048]


def test_a_memory_limit_too_small_for_four_slots_gives_one_slot() -> None:
    small = model(pod={"resources": {"limits": {"memory": "400Mi"}}})
    for subject, parallel in ((model(), "4"), (small, "1")):
        variables = {item.get("name"): item.get("value") for item in get_objects(container(subject), "env")}
        assert variables["OLLAMA_NUM_PARALLEL"] == parallel


@pytest.mark.parametrize(
    ("settings", "config"),
    [
        ({"OLLAMA_NUM_PARALLEL": "1"}, LoadConfig(4096, 1)),
        ({"OLLAMA_CONTEXT_LENGTH": "2048"}, LoadConfig(2048, 4)),
        ({"OLLAMA_KV_CACHE_TYPE": "q8_0"}, LoadConfig(4096, 4, kv_cache_type="q8_0")),
        ({"OLLAMA_FLASH_ATTENTION": "false"}, LoadConfig(4096, 4, flash_attention=False)),
    ],
)
def test_the_memory_follows_the_installations_settings(settings: dict[str, str], config: LoadConfig) -> None:
    resources = container(model(), defaults=RunnerDefaults(settings=settings))["resources"]
    assert get_value(resources, "requests", "memory") == mebibytes(config)


def test_the_memory_follows_the_variables_of_the_model() -> None:
    subject = model(pod={"env": [{"name": "OLLAMA_NUM_PARALLEL", "value": "1"}]})
    assert get_value(container(subject)["resources"], "requests", "memory") == mebibytes(LoadConfig(4096, 1))


def test_without_metadata_only_cpu_is_requested() -> None:
    bare = get_objects(pod_spec(model(), None, defaults=RunnerDefaults()), "containers")[0]
    assert bare["resources"] == {"requests": {"cpu": "250m"}}


def test_the_readiness_probe_outlasts_the_runners_delayed_answer() -> None:
    readiness = container(model())["readinessProbe"]
    assert get_value(readiness, "httpGet", "path") == "/readyz?wait=4"
    timeout = get_value(readiness, "timeoutSeconds")
    assert isinstance(timeout, int)
    assert timeout > 4


@pytest.mark.parametrize(("timeout", "failures"), [(300.0, 300), (1.0, 30), (FOREVER, 2**31 - 1)])
def test_the_kubelet_ends_no_load_whatever_its_size(timeout: float, failures: int) -> None:
    built = container(model(), defaults=RunnerDefaults(load_timeout=timeout))
    startup = built["startupProbe"]
    assert (get_value(startup, "httpGet", "path"), get_value(startup, "periodSeconds")) == ("/healthz", 1)
    assert get_value(startup, "failureThreshold") == failures
    environment = {item["name"]: item.get("value") for item in get_objects(built, "env")}
    assert timeout_setting({"X": str(environment["OLLAMA_LOAD_TIMEOUT"])}, "X", default=1) == timeout
