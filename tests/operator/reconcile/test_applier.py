"""Applier: a Model's objects are written when something differs, and not otherwise."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corral_core.base.json_fields import JsonObject, get_object, get_objects, get_value
from corral_core.contracts.source_resolution import ResolvedPins
from corral_core.sources.snapshot import snapshot_id
from corral_kube.errors import Forbidden, KubeError, error_from_status
from corral_operator.config import PullerDefaults, RunnerDefaults
from corral_operator.observe import api_paths
from corral_operator.observe.cluster_state import ClusterState, Kind
from corral_operator.observe.objects import ModelObject, parse_model_object
from corral_operator.reconcile.applier import INTERRUPT_GRACE, Applier, ObjectNotOwned, ObjectRejected
from corral_operator.reconcile.rollouts import Rollouts
from tests.operator import pull_samples, samples
from tests.operator.fake_kube import FakeKube

DEPLOYMENT = api_paths.deployments("lab", "model-tiny")
SERVICE = api_paths.services("lab", "model-tiny")
POLICY = api_paths.network_policies("lab", "model-tiny")
GATEWAYS = {"podSelector": {"matchLabels": {"app": "gateway"}}}


class NoInspection:
    async def reconcile(self, item: ModelObject) -> None:
        return

    def forget(self, model: str) -> None:
        return


class NoPulls:
    async def reconcile(self, item: ModelObject, *, wanted: bool) -> None:
        return

    def forget(self, model: str) -> None:
        return


class ApplierCase:
    """An applier over an API server in memory."""

    def __init__(self, kube: FakeKube, state: ClusterState) -> None:
        self.kube = kube
        self.state = state
        self.set_defaults(RunnerDefaults())

    def set_defaults(self, defaults: RunnerDefaults) -> None:
        """Replace the applier by one with other settings, as a restart of the operator does."""
        rollouts = Rollouts(self.state, timeout=300.0, requeue=lambda model, delay: None)
        self.applier = Applier(self.kube, self.state, defaults, NoInspection(), pulls=NoPulls(), rollouts=rollouts)

    async def apply(self, replicas: int, **model: object) -> list[str]:
        """Apply the sample Model with these changes of its spec; return the paths that were written."""
        before = len(self.kube.writes)
        version = 10 + len(model)
        raw = samples.model(spec=model, version=version)
        self.state.apply(Kind.MODELS, raw)
        await self.applier.apply(parse_model_object(raw), replicas, pull=True)
        return self.kube.writes[before:]

    async def apply_raw(self, raw: JsonObject, replicas: int) -> None:
        """Apply this Model."""
        self.state.apply(Kind.MODELS, raw)
        await self.applier.apply(parse_model_object(raw), replicas, pull=True)

    def watch_event(self, *, replicas: int = 1, generation: int, deleted: bool = False) -> None:
        """Change or delete the Deployment, and receive the watch event."""
        self.kube.version += 1
        known = self.kube.objects.pop(DEPLOYMENT)
        raw = samples.with_metadata(known, resourceVersion=str(self.kube.version), generation=generation)
        raw["spec"] = {**get_object(known, "spec"), "replicas": replicas}
        if deleted:
            self.state.delete(Kind.DEPLOYMENTS, raw)
        else:
            self.kube.objects[DEPLOYMENT] = raw
            self.state.apply(Kind.DEPLOYMENTS, raw)

    def set_nodes(self, **memory: str) -> None:
        """Set the nodes, by name with their memory."""
        self.kube.version += 1
        version = self.kube.version
        disk = {"ephemeral-storage": "100Gi"}
        nodes = [samples.node(name, memory=size, version=version, devices=disk) for name, size in memory.items()]
        self.state.replace(Kind.NODES, nodes, str(version))
        self.state.replace(Kind.OTHER_PODS, [], str(version))

    def parallel(self) -> object:
        pod = get_object(self.kube.objects[DEPLOYMENT], "spec", "template", "spec")
        variables = get_objects(get_objects(pod, "containers")[0], "env")
        return next(item["value"] for item in variables if item["name"] == "OLLAMA_NUM_PARALLEL")

    def replicas(self) -> object:
        return get_value(self.kube.objects[DEPLOYMENT], "spec", "replicas")


@pytest.fixture
def case(kube: FakeKube, state: ClusterState) -> ApplierCase:
    return ApplierCase(kube, state)


async def test_only_terminating_runners_are_interrupted(case: ApplierCase) -> None:
    deleted = {"deletionTimestamp": samples.CREATED, "deletionGracePeriodSeconds": 610}
    for name, metadata in {"stays": {}, "ends": deleted, "told": {**deleted, "deletionGracePeriodSeconds": 10}}.items():
        raw = samples.with_metadata(samples.pod(name=name), **metadata)
        case.kube.objects[api_paths.pods("lab", name)] = raw
        case.state.apply(Kind.PODS, raw)
    await case.applier.interrupt("lab/tiny")
    assert case.kube.deleted == [(api_paths.pods("lab", "ends"), INTERRUPT_GRACE)]


async def test_missing_objects_are_created_the_deployment_first(case: ApplierCase) -> None:
    assert await case.apply(1) == [DEPLOYMENT, SERVICE]
    assert case.replicas() == 1


async def test_unchanged_objects_are_not_written_again(case: ApplierCase) -> None:
    await case.apply(1)
    assert await case.apply(1) == []


async def test_another_number_of_replicas_writes_the_deployment_alone(case: ApplierCase) -> None:
    await case.apply(0)
    assert await case.apply(1) == [DEPLOYMENT]
    assert case.replicas() == 1


async def test_an_edited_model_writes_the_deployment(case: ApplierCase) -> None:
    await case.apply(1)
    assert await case.apply(1, system="Be kind.") == [DEPLOYMENT]


@pytest.mark.parametrize("replicas", [1, 5])
async def test_an_edited_deployment_is_written_once(case: ApplierCase, replicas: int) -> None:
    await case.apply(1)
    case.watch_event(replicas=replicas, generation=2)
    assert await case.apply(1) == [DEPLOYMENT]
    assert await case.apply(1) == []


async def test_a_change_of_the_deployments_status_writes_nothing(case: ApplierCase) -> None:
    await case.apply(1)
    case.watch_event(generation=1)
    assert await case.apply(1) == []


async def test_a_deleted_deployment_is_created_again(case: ApplierCase) -> None:
    await case.apply(1)
    case.watch_event(generation=1, deleted=True)
    assert await case.apply(1) == [DEPLOYMENT]


async def test_an_object_of_another_owner_is_not_changed(case: ApplierCase) -> None:
    other = {"metadata": {"name": "model-tiny", "labels": {"app": "other"}}, "spec": {"selector": {"app": "other"}}}
    case.kube.objects[SERVICE] = other
    with pytest.raises(ObjectNotOwned, match="model-tiny"):
        await case.apply(1)
    assert case.kube.objects[SERVICE] == other


@pytest.mark.parametrize(
    ("status", "message", "reason", "phase"),
    [
        (422, 'Deployment.apps "model-tiny" is invalid: spec.template.spec.affinity', "DeploymentRejected", "Failed"),
        (500, "failed to create typed patch object: .affinity.nope: not declared", "DeploymentRejected", "Failed"),
        (403, 'deployments.apps "model-tiny" is forbidden: exceeded quota: small', "QuotaExceeded", "Failed"),
        (500, 'Internal error occurred: failed calling webhook "x"', "DeploymentRejected", "Loading"),
    ],
)
async def test_a_refusal_of_the_api_server_is_the_models_failure(
    case: ApplierCase, status: int, message: str, reason: str, phase: str
) -> None:
    case.kube.failures = [error_from_status(status, f"PATCH /x: {status} {message}", server_message=message)]
    with pytest.raises(ObjectRejected) as rejected:
        await case.apply(1)
    failure = rejected.value.failure
    assert (failure.reason, failure.phase) == (reason, phase)
    assert f"Deployment: {message}" in failure.message
    assert await case.apply(1) == [DEPLOYMENT, SERVICE]


@pytest.mark.parametrize("status", [404, 409, 429, 500, 503])
async def test_other_errors_of_the_api_server_are_no_refusal(case: ApplierCase, status: int) -> None:
    await case.apply(0)
    case.kube.failures = [error_from_status(status, "etcdserver: leader changed")]
    with pytest.raises(KubeError):
        await case.apply(1)


async def test_a_runner_gets_fewer_slots_if_no_node_has_memory_for_more_and_keeps_them_while_it_runs(
    case: ApplierCase,
) -> None:
    case.set_nodes(small="500Mi")
    await case.apply(1)
    assert case.parallel() == "1"
    case.set_nodes(small="500Mi", large="8Gi")
    assert await case.apply(1) == []
    await case.apply(0)
    assert case.parallel() == "4"
    case.set_nodes(small="500Mi")
    await case.apply(1)
    assert case.parallel() == "1"


async def test_the_network_policy_is_written_before_the_deployment_whose_pods_it_guards(case: ApplierCase) -> None:
    case.set_defaults(RunnerDefaults(network_clients=(GATEWAYS,)))
    assert await case.apply(1) == [POLICY, DEPLOYMENT, SERVICE]
    assert await case.apply(1) == []
    spec = get_object(case.kube.objects[POLICY], "spec")
    assert spec["ingress"] == [{"ports": [{"port": 8080, "protocol": "TCP"}], "from": [GATEWAYS]}]
    assert (spec["policyTypes"], spec["egress"]) == (["Ingress", "Egress"], [])


async def test_no_runner_starts_while_the_network_policy_is_refused(case: ApplierCase) -> None:
    case.set_defaults(RunnerDefaults(network_clients=(GATEWAYS,)))
    case.kube.failures.append(Forbidden("networkpolicies are not allowed"))
    with pytest.raises(ObjectRejected, match="NetworkPolicy"):
        await case.apply(1)
    assert DEPLOYMENT not in case.kube.objects


async def test_a_policy_is_deleted_when_the_installation_has_none_any_more(case: ApplierCase) -> None:
    case.set_defaults(RunnerDefaults(network_clients=(GATEWAYS,)))
    await case.apply(1)
    case.set_defaults(RunnerDefaults())
    await case.apply(1)
    assert POLICY not in case.kube.objects


async def test_an_edited_source_is_loaded_when_it_is_pulled_and_the_earlier_one_serves_until_then(
    case: ApplierCase,
) -> None:
    case.state.apply(Kind.CLAIMS, pull_samples.claim())
    await case.apply_raw(pull_samples.model(source=pull_samples.PULLED), 1)
    serving = case.kube.objects[DEPLOYMENT]
    assert pull_samples.SNAPSHOT in str(serving)

    edited = replace(pull_samples.RESOLVED, pins={pull_samples.SOURCE: "another commit"})
    await case.apply_raw(pull_samples.model(source=edited, version=11), 1)
    assert case.kube.objects[DEPLOYMENT] == serving

    expected = {pull_samples.SOURCE: snapshot_id(pull_samples.SOURCE, "another commit")}
    pulled = replace(edited, snapshots=expected, claim="model-tiny", claim_uid="uid-claim")
    await case.apply_raw(pull_samples.model(source=pulled, version=12), 1)
    assert expected[pull_samples.SOURCE] in str(case.kube.objects[DEPLOYMENT])
    assert case.replicas() == 1


async def test_fewer_runners_never_get_the_template_of_a_source_that_is_not_pulled(case: ApplierCase) -> None:
    case.state.apply(Kind.CLAIMS, pull_samples.claim())
    await case.apply_raw(pull_samples.model(source=pull_samples.PULLED), 2)
    serving = case.kube.objects[DEPLOYMENT]
    edited = replace(pull_samples.RESOLVED, pins={pull_samples.SOURCE: "another commit"})
    await case.apply_raw(pull_samples.model(source=edited, version=11), 1)
    assert case.kube.objects[DEPLOYMENT] == serving
    await case.apply_raw(pull_samples.model(source=edited, version=12), 0)
    assert case.replicas() == 0


async def test_a_runner_starts_with_the_pulled_version_while_a_new_one_is_not_pulled(case: ApplierCase) -> None:
    case.state.apply(Kind.CLAIMS, pull_samples.claim())
    known = replace(pull_samples.PULLED, resolved_at="2026-01-01T00:00:00Z")
    polled = pull_samples.model(source=known, spec={"updatePolicy": "Poll"})
    case.state.apply(Kind.MODELS, polled)
    case.state.apply(Kind.PODS, pull_samples.inspector(ResolvedPins(("new",), 7), finished="2026-01-01T01:00:00Z"))
    await case.apply_raw(polled, 1)
    assert case.replicas() == 1
    assert pull_samples.SNAPSHOT in str(case.kube.objects[DEPLOYMENT])


async def test_a_model_that_is_not_pulled_has_a_deployment_without_runners(case: ApplierCase) -> None:
    await case.apply_raw(pull_samples.model(), 0)
    assert case.replicas() == 0
    assert case.kube.writes == [DEPLOYMENT, SERVICE]


async def test_pullers_have_a_policy_while_the_model_has_a_remote_source(case: ApplierCase) -> None:
    operator = {"podSelector": {"matchLabels": {"app": "operator"}}}
    case.set_defaults(RunnerDefaults(network_clients=(GATEWAYS,), puller=PullerDefaults(clients=(operator,))))
    await case.apply_raw(pull_samples.model(), 0)
    policy = api_paths.network_policies("lab", "pull-model-tiny")
    assert {POLICY, policy} <= set(case.kube.objects)
    await case.apply_raw(samples.model(version=11), 0)
    assert policy not in case.kube.objects
    assert POLICY in case.kube.objects


async def test_the_policies_of_a_model_are_not_those_of_a_model_whose_name_ends_in_pull(case: ApplierCase) -> None:
    operator = {"podSelector": {"matchLabels": {"app": "operator"}}}
    case.set_defaults(RunnerDefaults(network_clients=(GATEWAYS,), puller=PullerDefaults(clients=(operator,))))
    await case.apply_raw(pull_samples.model("tiny"), 0)
    await case.apply_raw(pull_samples.model("tiny-pull"), 0)
    policies = [path for path in case.kube.objects if "/networkpolicies/" in path]
    assert len(policies) == 4


async def test_only_runners_that_pull_reach_what_pullers_reach(case: ApplierCase) -> None:
    case.set_defaults(RunnerDefaults(network_clients=(GATEWAYS,), puller=PullerDefaults(clients=(GATEWAYS,))))
    await case.apply_raw(pull_samples.model(), 0)
    assert get_value(case.kube.objects[POLICY], "spec", "egress") == []
    await case.apply_raw(pull_samples.model(version=11, spec=pull_samples.EPHEMERAL), 0)
    pullers = case.kube.objects[api_paths.network_policies("lab", "pull-model-tiny")]
    assert get_value(case.kube.objects[POLICY], "spec", "egress") == get_value(pullers, "spec", "egress")
    (ingress,) = get_objects(case.kube.objects[POLICY], "spec", "ingress")
    assert ingress["from"] == [GATEWAYS]


async def test_a_new_node_replaces_no_runner_that_pulled(case: ApplierCase) -> None:
    def ranges() -> object:
        (init,) = get_objects(case.kube.objects[DEPLOYMENT], "spec", "template", "spec", "initContainers")
        return next(item["value"] for item in get_objects(init, "env") if item["name"] == "NO_PROXY")

    case.kube.objects["/api/v1/nodes/one"] = {**samples.node("one"), "spec": {"podCIDRs": ["10.1.0.0/24"]}}
    await case.apply_raw(pull_samples.model(spec=pull_samples.EPHEMERAL), 1)
    before = ranges()
    assert "10.1.0.0/24" in str(before)
    case.kube.objects["/api/v1/nodes/two"] = {**samples.node("two"), "spec": {"podCIDRs": ["10.9.0.0/24"]}}
    case.set_defaults(RunnerDefaults())
    await case.apply_raw(pull_samples.model(version=11, spec=pull_samples.EPHEMERAL), 1)
    assert ranges() == before
    await case.apply_raw(pull_samples.model(version=12, spec=pull_samples.EPHEMERAL), 0)
    case.set_defaults(RunnerDefaults())
    await case.apply_raw(pull_samples.model(version=13, spec=pull_samples.EPHEMERAL), 0)
    assert "10.9.0.0/24" in str(ranges())


async def test_runners_that_pull_keep_their_slots_while_they_run(case: ApplierCase) -> None:
    case.set_nodes(small="500Mi")
    await case.apply_raw(pull_samples.model(spec=pull_samples.EPHEMERAL), 1)
    assert case.parallel() == "1"
    case.set_nodes(small="500Mi", large="8Gi")
    await case.apply_raw(pull_samples.model(version=11, spec=pull_samples.EPHEMERAL), 1)
    assert case.parallel() == "1"


@pytest.mark.parametrize(("there", "used"), [(True, "nvidia"), (False, None)])
async def test_runners_with_nvidia_gpus_name_the_runtime_class_that_the_cluster_has(
    case: ApplierCase, *, there: bool, used: str | None
) -> None:
    if there:
        case.kube.objects[f"{api_paths.runtime_classes()}/nvidia"] = {"metadata": {"name": "nvidia"}}
    await case.apply(1, gpu={"count": 1})
    assert get_object(case.kube.objects[DEPLOYMENT], "spec", "template", "spec").get("runtimeClassName") == used
