from __future__ import annotations

import pytest

from corral_server.gateway.directory.directory import Endpoint
from corral_server.gateway.queueing.admission import QueueFull
from corral_server.gateway.queueing.model_queue import PendingRequest
from corral_server.gateway.queueing.queue import RequestQueue


def endpoints(**slots: int) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(name, "127.0.0.1", 1, number) for name, number in slots.items())


def test_a_request_with_a_free_slot_is_not_pending() -> None:
    queue = RequestQueue(0)
    request = queue.submit("a", endpoints(one=1), arrived_at=0)
    assert request.assigned is not None
    assert queue.pending == 0


def test_the_limit_applies_to_all_models_together() -> None:
    queue = RequestQueue(2)
    queue.submit("a", (), arrived_at=0)
    queue.submit("b", (), arrived_at=0)
    with pytest.raises(QueueFull):
        queue.submit("c", (), arrived_at=0)
    assert dict(queue.model_queues()).keys() == {"a", "b"}


def test_a_full_queue_does_not_reject_a_request_with_a_free_slot() -> None:
    queue = RequestQueue(1)
    queue.submit("a", (), arrived_at=0)
    assert queue.submit("b", endpoints(one=1), arrived_at=0).assigned is not None


def test_a_new_request_does_not_overtake_pending_requests() -> None:
    queue = RequestQueue(9)
    served = endpoints(one=1)
    running = queue.submit("a", served, arrived_at=0)
    first = queue.submit("a", served, arrived_at=1)
    second = queue.submit("a", served, arrived_at=2)
    queue.finish(running)
    assert first.assigned is not None
    assert second.assigned is None
    assert queue.oldest_arrival("a") == 2


@pytest.mark.parametrize("returns", [(0, 1), (1, 0)])
def test_requeued_requests_return_to_their_old_positions(returns: tuple[int, int]) -> None:
    queue = RequestQueue(9)
    served = endpoints(one=2)
    first, second, third = (queue.submit("a", served, arrived_at=number) for number in range(3))
    state = first.assigned
    assert state is not None
    state.backing_off = True
    for number in returns:
        queue.requeue((first, second)[number])
    state.capacity = 1
    order = []
    queue.end_backoff("a", state)
    for _ in range(3):
        (request,) = [each for each in (first, second, third) if each.assigned is not None]
        order.append(request)
        queue.finish(request)
    assert order == [first, second, third]


def test_the_endpoint_with_the_most_free_slots_is_selected() -> None:
    queue = RequestQueue(9)
    served = endpoints(one=1, two=3)
    taken = [queue.submit("a", served, arrived_at=0).assigned for _ in range(4)]
    assert [state.endpoint.id for state in taken if state] == ["two", "two", "one", "two"]


def test_a_reduced_number_of_slots_applies_as_requests_finish() -> None:
    queue = RequestQueue(9)
    running = [queue.submit("a", endpoints(one=3), arrived_at=0) for _ in range(3)]
    queue.update_endpoints("a", endpoints(one=1))
    waiting = queue.submit("a", endpoints(one=1), arrived_at=0)
    queue.finish(running[0])
    queue.finish(running[1])
    assert waiting.assigned is None
    queue.finish(running[2])
    assert waiting.assigned is not None


def test_an_endpoint_that_is_listed_again_keeps_its_running_requests() -> None:
    queue = RequestQueue(9)
    running = queue.submit("a", endpoints(one=1), arrived_at=0)
    queue.update_endpoints("a", ())
    queue.update_endpoints("a", endpoints(one=1))
    waiting = queue.submit("a", endpoints(one=1), arrived_at=0)
    assert waiting.assigned is None
    queue.finish(running)
    assert waiting.assigned is not None


def test_the_queue_of_a_deleted_model_is_dropped() -> None:
    queue = RequestQueue(9)
    running = queue.submit("a", endpoints(one=1), arrived_at=0)
    leaving = queue.submit("a", endpoints(one=1), arrived_at=0)
    queue.update_endpoints("a", ())
    queue.finish(leaving)
    queue.finish(running)
    queue.finish(running)
    assert dict(queue.model_queues()) == {}
    assert queue.pending == 0


def test_rejected_requests_get_the_error() -> None:
    queue = RequestQueue(9)
    notified: list[PendingRequest] = []
    request = queue.submit("a", (), arrived_at=0)
    request.on_resolved = lambda: notified.append(request)
    error = RuntimeError("no")
    queue.reject_all("a", error)
    queue.finish(request)
    assert (request.error, notified, queue.pending, dict(queue.model_queues())) == (error, [request], 0, {})


def failed(queue: RequestQueue, request: PendingRequest) -> None:
    """Requeue a request whose runner is unreachable, and end the backoff immediately."""
    state = request.assigned
    assert state is not None
    state.backing_off = state.half_open = True
    queue.requeue(request)
    queue.end_backoff(request.key, state)


def test_a_half_open_endpoint_gets_one_trial_request_until_it_is_reachable() -> None:
    queue = RequestQueue(9)
    served = endpoints(one=3)
    first, second, third = (queue.submit("a", served, arrived_at=number) for number in range(3))
    for request in (second, third, first):
        failed(queue, request)
    granted = [request for request in (first, second, third) if request.assigned]
    assert len(granted) == 1
    assert queue.confirm_reachable(granted[0])
    assert all(request.assigned for request in (first, second, third))
    assert not queue.confirm_reachable(first)


def test_the_next_request_becomes_the_trial_when_the_first_one_leaves() -> None:
    queue = RequestQueue(9)
    served = endpoints(one=3)
    first, second = (queue.submit("a", served, arrived_at=number) for number in range(2))
    failed(queue, second)
    failed(queue, first)
    trying, waiting = (first, second) if first.assigned else (second, first)
    assert waiting.assigned is None
    queue.finish(trying)
    assert waiting.assigned is not None


def test_a_half_open_endpoint_is_selected_last() -> None:
    queue = RequestQueue(9)
    served = endpoints(gone=4, well=1)
    first = queue.submit("a", served, arrived_at=0)
    failed(queue, first)
    assert first.assigned is not None
    assert first.assigned.endpoint.id == "well"
    second = queue.submit("a", served, arrived_at=1)
    assert second.assigned is not None
    assert second.assigned.endpoint.id == "gone"
