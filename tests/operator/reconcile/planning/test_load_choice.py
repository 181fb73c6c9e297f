"""Choice of GPUs and load configs on the nodes of a cluster, and what a running runner keeps."""

from __future__ import annotations

from dataclasses import replace

from corral_core.base.json_fields import get_object, get_objects, get_value
from corral_core.contracts.demand import DemandEntry
from corral_core.model.model import Model
from corral_core.model.resource import parse_model
from corral_operator.config import RunnerDefaults
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.objects import DeploymentObject, parse_deployment
from corral_operator.reconcile import manifests
from corral_operator.reconcile.planning.load_choice import choose_load
from corral_operator.report.load import LoadChoice
from tests.operator import samples
from tests.operator.reconcile.loads import cluster_with
from tests.support.gpu_samples import A100, GPU, L4, NodeKind, dimensions

DEFAULTS = RunnerDefaults()
MEDIUM = replace(samples.METADATA, dimensions=dimensions(8))
LARGE = replace(samples.METADATA, dimensions=dimensions(30))


def node(name: str, kind: NodeKind, *, memory: str = "64Gi", taint: str = "") -> dict[str, object]:
    raw = samples.node(name, memory=memory, devices=kind.resources)
    taints = [{"key": taint, "effect": "NoSchedule"}] if taint else []
    return {**samples.with_metadata(raw, labels={**kind.labels, "name": name}), "spec": {"taints": taints}}


def model(**spec: object) -> Model:
    return parse_model(samples.model(spec=spec))


def chosen(state: ClusterState, subject: Model, current: DeploymentObject | None = None) -> LoadChoice:
    return choose_load(state, subject, defaults=DEFAULTS, current=current)


def running(subject: Model, load: LoadChoice) -> DeploymentObject:
    """Return the Deployment of one runner with this load."""
    return parse_deployment(manifests.deployment(subject, 1, defaults=DEFAULTS, load=load))


def resource(load: LoadChoice) -> str:
    return f"{load.gpus.count} {load.gpus.resource}" if load.gpus is not None else "cpu"


def test_a_model_gets_a_gpu_although_nothing_in_it_says_so() -> None:
    load = chosen(cluster_with(model(), MEDIUM, [node("a", A100)]), model())
    assert resource(load) == f"1 {GPU}"
    assert load.why.startswith("on 1 nvidia.com/gpu with ")


def test_the_reason_says_why_not_a_better_way() -> None:
    load = chosen(cluster_with(model(), LARGE, [node("a", L4)]), model())
    assert load.gpus is not None
    assert load.gpus.capacity > 0
    assert "one GPU needs 3" in load.why
    assert "the largest has 22.5 GiB" in load.why


def test_without_gpus_a_model_runs_on_the_cpu_and_says_so() -> None:
    load = chosen(cluster_with(model(), MEDIUM, [node("a", NodeKind({}, {}))]), model())
    assert resource(load) == "cpu"
    assert load.why == "on the CPU for 4 parallel requests; no node offers GPUs"


def test_only_nodes_that_admit_the_pod_count() -> None:
    nodes = [node("a", A100), node("b", L4)]
    small = model(pod={"nodeSelector": {"name": "b"}})
    load = chosen(cluster_with(small, LARGE, nodes), small)
    assert load.gpus is not None
    assert load.gpus.capacity > 0, "the node with the large GPUs is not for this Model"


def test_the_taint_of_gpu_nodes_is_tolerated_and_another_is_not() -> None:
    assert resource(chosen(cluster_with(model(), MEDIUM, [node("a", A100, taint=GPU)]), model())) == f"1 {GPU}"
    others = [node("a", A100, taint="team"), node("b", NodeKind({}, {}))]
    assert resource(chosen(cluster_with(model(), MEDIUM, others), model())) == "cpu"


def test_gpus_without_an_image_for_them_are_not_used() -> None:
    state = cluster_with(model(), MEDIUM, [node("a", A100)])
    load = choose_load(state, model(), defaults=RunnerDefaults(images={}), current=None)
    assert resource(load) == "cpu"


def test_the_host_needs_no_memory_for_weights_on_gpus() -> None:
    load = chosen(cluster_with(model(), LARGE, [node("a", A100, memory="8Gi")]), model())
    assert resource(load) == f"1 {GPU}"


def test_a_running_runner_keeps_its_gpus_when_better_ones_join_or_labels_go() -> None:
    first = chosen(cluster_with(model(), MEDIUM, [node("a", L4)]), model())
    better = cluster_with(model(), MEDIUM, [node("a", L4), node("b", A100)])
    assert chosen(better, model(), running(model(), first)) == first
    bare = cluster_with(model(), MEDIUM, [node("a", NodeKind(L4.resources, {}))])
    bare.apply(Kind.PODS, samples.pod())
    assert chosen(bare, model(), running(model(), first)) == first
    assert chosen(cluster_with(model(), MEDIUM), model(), running(model(), first)) == first, "no node is known yet"


def test_a_running_runner_keeps_the_cpu_when_gpus_join() -> None:
    first = chosen(cluster_with(model(), MEDIUM, [node("a", NodeKind({}, {}))]), model())
    state = cluster_with(model(), MEDIUM, [node("a", NodeKind({}, {})), node("b", A100)])
    assert resource(chosen(state, model(), running(model(), first))) == "cpu"
    assert resource(chosen(state, model())) == f"1 {GPU}"


def test_a_change_of_the_gpu_fields_is_applied_to_a_running_runner() -> None:
    state = cluster_with(model(), MEDIUM, [node("a", A100)])
    first = chosen(state, model())
    two = model(gpu={"count": 2})
    assert resource(chosen(state, two, running(model(), first))) == f"2 {GPU}"
    assert resource(chosen(state, model(gpu={"count": 0}), running(model(), first))) == "cpu"


def test_a_part_of_a_model_keeps_its_gpus_too() -> None:
    first = chosen(cluster_with(model(), LARGE, [node("a", L4)]), model())
    state = cluster_with(model(), LARGE, [node("a", L4), node("b", A100)])
    assert chosen(state, model(), running(model(), first)) == first


def test_the_pod_has_the_affinity_of_its_gpus_and_of_the_model() -> None:
    own = {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": own}, "podAffinity": {}}
    subject = model(pod={"affinity": affinity})
    state = cluster_with(subject, MEDIUM, [samples.with_metadata(node("a", A100), labels={**A100.labels, "zone": "a"})])
    load = chosen(state, subject)
    manifest = manifests.deployment(subject, 1, defaults=DEFAULTS, load=load)
    required = get_object(
        manifest,
        "spec",
        "template",
        "spec",
        "affinity",
        "nodeAffinity",
        "requiredDuringSchedulingIgnoredDuringExecution",
    )
    for term in get_objects(required, "nodeSelectorTerms"):
        keys = [item["key"] for item in get_objects(term, "matchExpressions")]
        assert keys[:2] == ["zone", "nvidia.com/gpu.memory"]
    assert load.gpus is not None
    annotation = get_value(manifest, "spec", "template", "metadata", "annotations", "corral.dev/gpu-memory")
    assert annotation == str(load.gpus.memory)


def test_a_running_runner_keeps_its_context_length() -> None:
    state = cluster_with(model(), MEDIUM, [node("a", A100)])
    first = chosen(state, model())
    assert first.estimate is not None
    assert first.estimate.load_config.context_length == 8192, "the trained one"
    manifest = manifests.deployment(model(), 1, defaults=DEFAULTS, load=first)
    (container,) = get_objects(manifest, "spec", "template", "spec", "containers")
    assert {"name": "CORRAL_CONTEXT_LENGTH", "value": "8192"} in get_objects(container, "env")
    joined = cluster_with(model(), MEDIUM, [node("a", A100), node("b", L4)])
    assert chosen(joined, model(), running(model(), first)) == first
    without = chosen(state, model(contextLength=4096))
    assert chosen(state, model(), running(model(), without)) == without, (
        "no new context for a runner of an older release"
    )


def growing(cluster: ClusterState, wanted: int) -> ClusterState:
    entry = DemandEntry("gateway", 1, oldest=0.0, renewed=0.0, context_length=wanted)
    cluster.demand_tracker.update(model().key, [entry], now=0.0)
    return cluster


def context(load: LoadChoice) -> tuple[int, int]:
    """Return the chosen context, and the longest that there can be."""
    assert load.estimate is not None
    return load.estimate.load_config.context_length, load.max_context_length


def test_a_context_grows_to_what_pending_requests_ask_for_and_stays() -> None:
    subject = model(contextPolicy="Grow", contextLength=1024)
    state = cluster_with(subject, MEDIUM, [node("a", A100)])
    first = chosen(state, subject)
    assert context(first) == (1024, 8192)
    grown = chosen(growing(state, 3000), subject, running(subject, first))
    assert context(grown) == (4096, 8192)
    assert chosen(growing(state, 0), subject, running(subject, grown)) == grown
    assert context(chosen(growing(state, 10**6), subject, running(subject, grown))) == (8192, 8192)
    assert chosen(growing(state, 0), subject) == first, "a new start"


def test_a_context_does_not_grow_with_the_policy_fixed() -> None:
    subject = model(contextLength=1024)
    assert context(chosen(growing(cluster_with(subject, MEDIUM, [node("a", A100)]), 3000), subject)) == (1024, 0)


def test_a_context_grows_only_as_far_as_it_fits_with_all_layers_on_as_many_gpus() -> None:
    subject = model(contextPolicy="Grow", contextLength=4096, parallel=4)
    metadata = replace(MEDIUM, context_length=1 << 20)
    for kind, length in ((L4, 16_384), (A100, 131_072)):
        load = chosen(growing(cluster_with(subject, metadata, [node("a", kind)]), 1 << 20), subject)
        assert context(load) == (length, length)
        assert load.gpus is not None
        assert (load.gpus.count, load.gpus.capacity) == (1, 0)


def test_a_context_on_the_cpu_grows_only_as_far_as_it_fits_a_node() -> None:
    subject = model(contextPolicy="Grow", contextLength=4096, parallel=1)
    metadata = replace(MEDIUM, context_length=1 << 20)
    state = cluster_with(subject, metadata, [node("a", NodeKind({}, {}), memory="16Gi")])
    assert context(chosen(growing(state, 1 << 20), subject)) == (32_768, 32_768)
