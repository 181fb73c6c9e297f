"""Events of a Model as a function of its view and of the change of its status."""

from __future__ import annotations

from dataclasses import replace

from corral_core.planning.gpus.request import GpuRequest
from corral_core.planning.snapshot import Decision
from corral_core.weights.memory_estimate import estimate_memory
from corral_operator.observe.objects import parse_model_object
from corral_operator.observe.pod_failures import PodFailure
from corral_operator.observe.pulling.puller import parse_puller
from corral_operator.report.events import ModelEvent, model_events
from corral_operator.report.load import LoadChoice
from corral_operator.report.status import model_status
from corral_operator.report.view import ModelView, PullView
from tests.operator import pull_samples
from tests.operator.report.test_status import CRASHED, IDLE, RUN, conflicting, pod, view
from tests.operator.samples import NOW
from tests.support.gpu_samples import CONFIGS, GPU, dimensions


def events(*views: ModelView) -> list[ModelEvent]:
    """Return the Events of the last view, whose Model has the status that follows from the one before."""
    status = dict(views[0].item.status)
    for before in views[:-1]:
        status = model_status(replace(before, item=replace(before.item, status=status)), NOW)
    last = replace(views[-1], item=replace(views[-1].item, status=status))
    return model_events(last, model_status(last, NOW))


def test_an_unchanged_model_has_no_event() -> None:
    assert events(view(RUN, pod()), view(RUN, pod())) == []


def test_a_load_says_why_and_on_which_node() -> None:
    decision = Decision(1, "requests are pending: starting", placement="node-1")
    (event,) = events(view(IDLE), view(decision))
    assert (event.reason, event.warning) == ("Loading", False)
    assert event.message.startswith("requests are pending: starting on node-1; ")


def test_a_loaded_model_says_how_many_runners_are_ready_and_where() -> None:
    assert events(view(RUN), view(RUN, pod())) == [ModelEvent("Ready", "1 of 1 runners are ready, on node-1")]


def test_an_unload_says_why() -> None:
    expired = Decision(0, "unloaded: keep_alive expired")
    assert events(view(RUN, pod()), view(expired, pod(deleted=True))) == [ModelEvent("Draining", expired.reason)]


def test_an_eviction_says_for_which_model() -> None:
    evicted = Decision(0, "unloaded: frees capacity for lab/other", evicted_for="lab/other")
    assert events(view(RUN, pod()), view(evicted, pod(deleted=True))) == [ModelEvent("Evicted", evicted.reason)]


def test_a_model_that_waits_for_capacity_says_for_what_and_when_that_changes() -> None:
    first = Decision(0, "requests are pending: draining lab/other to free capacity", waiting_for_capacity=True)
    second = Decision(0, "requests are pending: lab/other is unloaded to free capacity", waiting_for_capacity=True)
    assert events(view(IDLE), view(first)) == [ModelEvent("WaitingForCapacity", first.reason, warning=True)]
    assert events(view(first), view(second)) == [ModelEvent("WaitingForCapacity", second.reason, warning=True)]
    assert events(view(second), view(second)) == []


def test_a_failed_model_says_why() -> None:
    crashed = view(RUN, pod(ready=False, failure=CRASHED))
    assert events(view(RUN), crashed) == [ModelEvent("Failed", "not a GGUF", warning=True)]


def test_a_failure_that_is_tried_again_is_an_event_once() -> None:
    failure = PodFailure("RunnerFailed", "no memory", "Loading")
    failing = view(RUN, pod(ready=False, failure=failure))
    assert events(view(RUN), failing) == [ModelEvent("RunnerFailed", "no memory", warning=True)]
    assert events(view(RUN), failing, failing) == []


def test_the_choice_of_gpus_is_an_event_with_its_reason() -> None:
    estimate = estimate_memory(dimensions(8), CONFIGS[0], gpus=2)
    chosen = LoadChoice(estimate, GpuRequest(GPU, 2, max(estimate.devices)), "on 2 GPUs, one has 24 GiB")
    on_gpus = replace(view(IDLE), load=chosen)
    (event,) = events(view(IDLE), on_gpus)
    assert event.reason == "PlacementChosen"
    assert event.message.startswith(f"a runner gets 2 {GPU} and about ")
    assert event.message.endswith(": on 2 GPUs, one has 24 GiB")
    assert events(on_gpus, on_gpus) == []


def test_names_that_belong_to_another_model_are_an_event_once() -> None:
    (event,) = events(view(IDLE), conflicting())
    assert (event.reason, event.warning) == ("NameConflict", True)
    assert events(conflicting(), conflicting()) == []


def pulling(failure: PodFailure | None = None) -> ModelView:
    item = parse_model_object(pull_samples.model())
    puller = parse_puller(pull_samples.puller({"running": {}}))
    puller = replace(puller, running=failure is None, failure=failure)
    pull = PullView(pull_samples.RESOLVED, puller=puller)
    return ModelView(item, Decision(0, "not pulled"), metadata=pull_samples.METADATA, pull=pull)


def test_the_begin_of_a_pull_its_failures_and_its_end_are_events() -> None:
    retrying = pulling(PodFailure("Retrying", "the registry does not answer", "Loading"))
    refused = pulling(PodFailure("PullFailed", "the registry refuses it", "Failed"))
    done = replace(pulling(), pull=PullView(pull_samples.PULLED))
    unresolved = replace(pulling(), metadata=None, pull=PullView(None))
    assert [event.reason for event in events(unresolved, pulling())] == ["Pulling"]
    assert events(pulling(), retrying) == [ModelEvent("Retrying", "the registry does not answer", warning=True)]
    assert events(pulling(), refused) == [ModelEvent("Failed", "the registry refuses it", warning=True)]
    assert [event.reason for event in events(pulling(), done)] == ["Pulled", "Idle"]
