"""Pulls: a claim and a puller for every Model whose sources are not pulled, whatever happens to pods and operator."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from corral_core.base.json_fields import JsonObject, get_object, get_objects, get_str, get_value
from corral_core.contracts.pull_status import encode_pulled
from corral_core.contracts.source_resolution import SourceResolution
from corral_core.sources.snapshot import snapshot_id
from corral_kube.errors import Forbidden
from corral_operator.config import PullerDefaults
from corral_operator.observe.cluster_state import Kind
from corral_operator.observe.objects import parse_model_object
from corral_operator.reconcile.pulling.task_pods import FIRST_EVICTED_DELAY, MIN_PROGRESS, SILENCE_TIMEOUT
from tests.operator import pull_samples, samples
from tests.operator.reconcile.pulling.pull_case import CLAIM, PULLER, PullCase


async def test_a_resolved_model_gets_one_claim_and_one_puller(case: PullCase) -> None:
    await case.reconcile()
    await case.reconcile()
    assert (case.objects("persistentvolumeclaims"), case.objects("pods")) == (["model-tiny"], ["model-tiny-pull"])
    writes = len(case.kube.writes)
    await case.reconcile()
    assert len(case.kube.writes) == writes, "the claim is written once"


@pytest.mark.parametrize("source", [None, replace(pull_samples.RESOLVED, uri="hf://organization/other")])
async def test_nothing_is_pulled_before_the_source_is_resolved(case: PullCase, source: SourceResolution | None) -> None:
    await case.reconcile(source=source)
    assert case.kube.objects == {}


async def test_nothing_is_pulled_before_it_is_wanted(case: PullCase) -> None:
    await case.reconcile(wanted=False)
    assert case.kube.objects == {}


async def test_the_claim_has_the_size_of_the_source_and_a_reserve_and_is_deleted_with_the_model(case: PullCase) -> None:
    await case.reconcile()
    claim = case.kube.objects[CLAIM]
    assert get_value(claim, "spec", "resources", "requests", "storage") == "1123Mi"
    assert get_value(claim, "spec", "accessModes") == ["ReadWriteOnce"]
    assert "storageClassName" not in get_object(claim, "spec")
    assert get_str(get_objects(claim, "metadata", "ownerReferences")[0], "uid") == "uid-tiny"


async def test_the_fields_of_the_cache_are_those_of_the_claim(case: PullCase) -> None:
    cache = {"size": "60Gi", "storageClassName": "fast", "accessModes": ["ReadWriteMany"], "retain": True}
    await case.reconcile(cache=cache)
    claim = case.kube.objects[CLAIM]
    assert get_value(claim, "spec", "resources", "requests", "storage") == "61440Mi"
    assert get_value(claim, "spec", "storageClassName") == "fast"
    assert get_value(claim, "spec", "accessModes") == ["ReadWriteMany"]
    assert get_value(claim, "metadata", "ownerReferences") == []


async def test_the_claim_of_another_owner_is_never_used(case: PullCase) -> None:
    foreign = samples.with_metadata(pull_samples.claim(), labels={})
    case.kube.objects[CLAIM] = dict(foreign)
    await case.reconcile()
    assert case.objects("pods") == []
    assert case.kube.writes == []
    assert case.state.pull_failures["lab/tiny"].reason == "ClaimNotOwned"


async def test_a_claim_that_the_api_server_rejects_is_reported_and_tried_again(case: PullCase) -> None:
    await case.reconcile(wanted=False)
    case.kube.failures = [Forbidden("exceeded quota: storage")]
    await case.reconcile()
    assert case.state.pull_failures["lab/tiny"].reason == "QuotaExceeded"
    await case.reconcile()
    assert case.state.pull_failures == {}
    assert case.objects("pods") == ["model-tiny-pull"]


async def test_the_puller_is_restricted_and_may_write_to_the_store(case: PullCase) -> None:
    await case.reconcile()
    spec = get_object(case.kube.objects[PULLER], "spec")
    assert get_object(spec, "securityContext")["fsGroup"] == 65532
    assert get_object(spec, "securityContext")["fsGroupChangePolicy"] == "OnRootMismatch"
    assert (spec["automountServiceAccountToken"], spec["restartPolicy"]) == (False, "OnFailure")
    assert get_value(case.container(), "securityContext", "readOnlyRootFilesystem") is True
    assert {"name": "store", "mountPath": "/store"} in get_objects(case.container(), "volumeMounts")
    claim = {"claimName": "model-tiny", "readOnly": False}
    assert {"name": "store", "persistentVolumeClaim": claim} in get_objects(spec, "volumes")


async def test_a_finished_puller_stays_until_the_status_has_its_snapshots(case: PullCase) -> None:
    await case.reconcile()
    case.finish()
    assert case.state.pulled("lab/tiny")
    await case.reconcile()
    assert case.objects("pods") == ["model-tiny-pull"]
    recorded = case.state.source("lab/tiny")
    await case.reconcile(source=recorded)
    assert case.objects("pods") == []
    await case.reconcile(source=recorded)
    assert case.objects("pods") == []


async def test_a_restarted_operator_uses_what_a_puller_reported_meanwhile(case: PullCase) -> None:
    await case.reconcile()
    case.finish()
    pod, claim = case.kube.objects[PULLER], case.kube.objects[CLAIM]
    case.start()
    case.state.apply(Kind.CLAIMS, claim)
    case.state.apply(Kind.PODS, pod)
    await case.reconcile()
    assert case.state.pulled("lab/tiny")
    assert case.objects("pods") == ["model-tiny-pull"]


async def test_a_deleted_claim_is_created_and_filled_again(case: PullCase) -> None:
    await case.reconcile()
    case.finish()
    recorded = case.state.source("lab/tiny")
    await case.reconcile(source=recorded)
    case.state.delete(Kind.CLAIMS, case.kube.objects.pop(CLAIM))
    await case.reconcile(source=recorded)
    assert not case.state.pulled("lab/tiny"), "the pod wrote to the claim that is gone"
    case.state.replace(Kind.PODS, [], "1000")
    await case.reconcile(source=recorded)
    assert (case.objects("persistentvolumeclaims"), case.objects("pods")) == (["model-tiny"], ["model-tiny-pull"])
    assert not case.state.pulled("lab/tiny")


async def test_a_change_that_does_not_concern_the_pull_replaces_no_puller(case: PullCase) -> None:
    await case.reconcile()
    before = case.kube.objects[PULLER]
    await case.reconcile(system="You are brief.", parameters={"seed": 1}, keepAlive="1h", minReplicas=1)
    assert case.kube.objects[PULLER] == before


async def test_a_change_of_the_proxy_replaces_the_puller(case: PullCase) -> None:
    await case.reconcile()
    await case.reconcile(proxy={"httpsProxy": "http://proxy.example:3128"})
    assert case.objects("pods") == []


async def test_a_puller_whose_pull_is_not_wanted_any_more_ends(case: PullCase) -> None:
    await case.reconcile()
    await case.reconcile(wanted=False, suspend=True)
    assert case.objects("pods") == []


async def test_at_most_the_limit_run_at_once_however_long_they_take(case: PullCase) -> None:
    case.start(PullerDefaults(limit=1))
    await case.reconcile("tiny")
    case.set_status(get_object(pull_samples.puller({"running": {}}), "status"))
    for each in range(1, 10):
        case.progress(each * MIN_PROGRESS)
        case.clock.now += SILENCE_TIMEOUT - 1
        await case.reconcile("other")
        assert case.objects("pods") == ["model-tiny-pull"]
    case.finish()
    await case.reconcile("tiny")
    assert case.requeued == ["lab/other"]


async def test_a_puller_that_is_being_created_counts(case: PullCase, monkeypatch: pytest.MonkeyPatch) -> None:
    create = case.kube.create

    async def slow(path: str, body: JsonObject) -> JsonObject:
        await asyncio.sleep(0)  # the other worker goes on
        return await create(path, body)

    monkeypatch.setattr(case.kube, "create", slow)
    case.start(PullerDefaults(limit=1))
    await asyncio.gather(case.reconcile("tiny"), case.reconcile("other"))
    assert case.objects("pods") == ["model-tiny-pull"]
    case.finish()
    await case.reconcile("tiny")
    assert case.requeued == ["lab/other"]


async def test_a_puller_without_progress_goes_on_and_does_not_block_others(case: PullCase) -> None:
    case.start(PullerDefaults(limit=1))
    await case.reconcile("tiny")
    case.set_status(get_object(pull_samples.puller({"running": {}}), "status"))
    await case.reconcile("other")
    case.progress(MIN_PROGRESS - 1)
    case.clock.now += SILENCE_TIMEOUT
    await case.reconcile("other")
    assert case.objects("pods") == ["model-tiny-pull", "model-other-pull"]


@pytest.mark.parametrize("owner", ["uid-other", None])
async def test_pods_that_no_model_owns_do_not_use_up_the_limit(case: PullCase, owner: str | None) -> None:
    case.start(PullerDefaults(limit=1))
    foreign = pull_samples.puller({"running": {}}, name="stranger")
    references = [{"kind": "Model", "name": "stranger", "uid": owner, "controller": True}] if owner else []
    case.state.apply(Kind.MODELS, pull_samples.model("stranger"))
    case.state.apply(Kind.PODS, samples.with_metadata(foreign, uid="uid-foreign", ownerReferences=references))
    await case.reconcile("tiny")
    assert case.objects("pods") == ["model-tiny-pull"]


async def test_a_puller_that_cannot_be_scheduled_is_replaced_when_other_nodes_are_suitable(case: PullCase) -> None:
    def nodes(*raws: JsonObject) -> None:
        case.kube.version += 1
        case.state.replace(Kind.NODES, list(raws), str(case.kube.version))
        case.state.replace(Kind.OTHER_PODS, [], str(case.kube.version))

    small, large = samples.node("small", memory="1Gi"), samples.node("large", memory="64Gi")
    nodes(small, large)
    case.state.apply(Kind.DEPLOYMENTS, samples.deployment(pod_spec=samples.requesting("6Gi")))
    await case.reconcile()
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    case.set_status({"phase": "Pending", "conditions": [unschedulable]})
    await case.reconcile()
    before = case.kube.objects[PULLER]
    nodes(small, large, samples.node("new", memory="64Gi"))
    await case.reconcile()
    assert case.objects("pods") == []
    case.state.delete(Kind.PODS, before)
    await case.reconcile()
    assert "'large', 'new'" in str(case.kube.objects[PULLER])


async def test_a_shared_claim_is_mounted_and_not_created(case: PullCase) -> None:
    await case.reconcile(cache={"type": "shared", "claimName": "weights"})
    assert case.objects("persistentvolumeclaims") == []
    volumes = get_objects(case.kube.objects[PULLER], "spec", "volumes")
    assert {"name": "store", "persistentVolumeClaim": {"claimName": "weights", "readOnly": False}} in volumes


async def test_an_edited_source_is_pulled_on_the_node_of_the_runner_next_to_its_weights(case: PullCase) -> None:
    await case.reconcile()
    annotations = {"corral.dev/snapshots": "0" * 32, "corral.dev/pulled-bytes": str(2 * 1024**3)}
    deployment = samples.with_metadata(samples.deployment(replicas=1), annotations=annotations)
    case.state.apply(Kind.DEPLOYMENTS, deployment)
    case.state.apply(Kind.PODS, samples.pod())
    case.kube.objects.pop(PULLER)
    case.state.replace(Kind.PODS, [samples.pod()], "1000")
    await case.reconcile()
    claim = case.kube.objects[CLAIM]
    assert get_value(claim, "spec", "resources", "requests", "storage") == "3273Mi"
    affinity = get_object(case.kube.objects[PULLER], "spec", "affinity", "nodeAffinity")
    assert "node-1" in str(affinity["requiredDuringSchedulingIgnoredDuringExecution"])


async def test_remote_adapters_are_pulled_with_the_weights(case: PullCase) -> None:
    adapter = "https://files.example/lora.gguf"
    source = replace(pull_samples.RESOLVED, pins={pull_samples.SOURCE: "1", adapter: "2"})
    raw = pull_samples.model(source=source, spec={"adapters": [{"name": "tuned", "source": adapter}]})
    item = parse_model_object(raw)
    assert item.resolved
    metadata = replace(pull_samples.METADATA, adapters_digest="")
    assert not item.describes(metadata), "the metadata is read again"
    ids = [snapshot_id(pull_samples.SOURCE, "1"), snapshot_id(adapter, "2")]
    assert len(set(ids)) == 2
    assert encode_pulled(ids).count(",") == 1


async def test_an_evicted_puller_is_created_again(case: PullCase) -> None:
    await case.reconcile()
    case.set_status({"phase": "Failed", "reason": "Evicted"})
    evicted = case.kube.objects[PULLER]
    await case.reconcile()
    case.state.delete(Kind.PODS, evicted)
    case.clock.now += FIRST_EVICTED_DELAY
    await case.reconcile()
    assert case.objects("pods") == ["model-tiny-pull"]


async def test_after_each_eviction_the_next_puller_is_created_later(case: PullCase) -> None:
    delays: list[float] = []
    for _ in range(7):
        await case.reconcile()
        case.set_status({"phase": "Failed", "reason": "Evicted"})
        evicted = case.kube.objects[PULLER]
        await case.reconcile()
        case.state.delete(Kind.PODS, evicted)
        case.delays.clear()
        await case.reconcile()
        assert case.objects("pods") == []
        (delay,) = case.delays
        case.clock.now += delay
        delays.append(delay)
    assert delays == [10, 20, 40, 80, 160, 300, 300]


async def test_a_volume_is_made_where_a_runner_could_run(case: PullCase) -> None:
    nodes = [samples.node("small", memory="1Gi"), samples.node("large", memory="64Gi"), samples.node("huge")]
    case.state.replace(Kind.NODES, nodes, "50")
    case.state.replace(Kind.OTHER_PODS, [], "50")
    deployment = samples.deployment(pod_spec=samples.requesting("6Gi"))
    case.state.apply(Kind.DEPLOYMENTS, deployment)
    affinity: JsonObject = {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    await case.reconcile(pod={"affinity": affinity})
    found = get_object(case.kube.objects[PULLER], "spec", "affinity")
    terms = get_objects(found, "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
    assert terms == [
        {"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": ["huge", "large"]}]}
    ]
    assert "podAffinity" in found


async def test_the_scheduler_is_free_if_every_node_could_run_the_runner(case: PullCase) -> None:
    case.state.replace(Kind.NODES, [samples.node("one"), samples.node("two")], "50")
    case.state.replace(Kind.OTHER_PODS, [], "50")
    case.state.apply(Kind.DEPLOYMENTS, samples.deployment(pod_spec=samples.requesting("1Gi")))
    await case.reconcile()
    assert "affinity" not in get_object(case.kube.objects[PULLER], "spec")


async def test_a_puller_keeps_what_runners_use_on_the_models_own_claim(case: PullCase) -> None:
    def kept() -> object:
        found = [one for one in get_objects(case.container(), "env") if one["name"] == "CORRAL_KEEP_SNAPSHOTS"]
        return found[0]["value"] if found else None

    annotations = {"corral.dev/snapshots": "0" * 32, "corral.dev/pulled-bytes": "1"}
    case.state.apply(Kind.DEPLOYMENTS, samples.with_metadata(samples.deployment(replicas=1), annotations=annotations))
    await case.reconcile()
    assert kept() == "0" * 32
    case.kube.objects.pop(PULLER)
    case.state.replace(Kind.PODS, [], "1000")
    await case.reconcile(cache={"type": "shared", "claimName": "weights"})
    assert kept() is None


async def test_a_poll_without_news_creates_no_puller(case: PullCase) -> None:
    await case.reconcile()
    case.finish()
    pulled = case.state.source("lab/tiny")
    assert pulled is not None
    recorded = replace(pulled, resolved_at="2026-01-01T00:00:00Z")
    await case.reconcile(source=recorded, updatePolicy="Poll")
    assert case.objects("pods") == []
    case.state.replace(Kind.PODS, [pull_samples.inspector(finished="2026-01-01T01:00:00Z")], "1000")
    await case.reconcile(source=recorded, updatePolicy="Poll")
    found = case.state.source("lab/tiny")
    assert found is not None
    assert found.resolved_at == "2026-01-01T01:00:00Z"
    assert case.objects("pods") == []


async def test_weights_in_the_pod_need_no_claim_and_no_puller(case: PullCase) -> None:
    await case.reconcile(cache=pull_samples.EPHEMERAL["cache"])
    assert case.kube.objects == {}
