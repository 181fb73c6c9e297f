from __future__ import annotations

import pytest

from corral_server.gateway.admission import QueueFull
from corral_server.gateway.directory import Endpoint
from corral_server.gateway.queue import Queue, Ticket


def endpoints(**slots: int) -> tuple[Endpoint, ...]:
    return tuple(Endpoint(name, "127.0.0.1", 1, number) for name, number in slots.items())


def test_a_free_slot_is_given_at_once_and_does_not_count_as_waiting() -> None:
    queue = Queue(0)
    ticket = queue.enter("a", endpoints(one=1), since=0)
    assert ticket.place is not None
    assert queue.waiting == 0


def test_admission_ends_at_the_limit_over_all_models() -> None:
    queue = Queue(2)
    queue.enter("a", (), since=0)
    queue.enter("b", (), since=0)
    with pytest.raises(QueueFull):
        queue.enter("c", (), since=0)
    assert set(queue.keys()) == {"a", "b"}


def test_a_full_queue_of_one_model_does_not_refuse_another_that_has_a_slot() -> None:
    queue = Queue(1)
    queue.enter("a", (), since=0)
    assert queue.enter("b", endpoints(one=1), since=0).place is not None


def test_nobody_passes_those_who_wait() -> None:
    queue = Queue(9)
    served = endpoints(one=1)
    running = queue.enter("a", served, since=0)
    first = queue.enter("a", served, since=1)
    second = queue.enter("a", served, since=2)
    queue.close(running)
    assert first.place is not None
    assert second.place is None
    assert queue.oldest("a") == 2


@pytest.mark.parametrize("returns", [(0, 1), (1, 0)])
def test_those_that_come_back_are_in_their_old_order_before_all_others(returns: tuple[int, int]) -> None:
    queue = Queue(9)
    served = endpoints(one=2)
    first, second, third = (queue.enter("a", served, since=number) for number in range(3))
    place = first.place
    assert place is not None
    place.resting = True
    for number in returns:
        queue.back((first, second)[number])
    place.allowed = 1
    order = []
    queue.wake("a", place)
    for _ in range(3):
        (ticket,) = [each for each in (first, second, third) if each.place is not None]
        order.append(ticket)
        queue.close(ticket)
    assert order == [first, second, third]


def test_the_endpoint_with_most_free_slots_is_taken() -> None:
    queue = Queue(9)
    served = endpoints(one=1, two=3)
    taken = [queue.enter("a", served, since=0).place for _ in range(4)]
    assert [place.endpoint.id for place in taken if place] == ["two", "two", "one", "two"]


def test_slots_that_shrink_are_not_given_again_until_enough_are_back() -> None:
    queue = Queue(9)
    running = [queue.enter("a", endpoints(one=3), since=0) for _ in range(3)]
    queue.update("a", endpoints(one=1))
    waiting = queue.enter("a", endpoints(one=1), since=0)
    queue.close(running[0])
    queue.close(running[1])
    assert waiting.place is None
    queue.close(running[2])
    assert waiting.place is not None


def test_an_endpoint_that_goes_and_returns_still_counts_what_runs_on_it() -> None:
    queue = Queue(9)
    running = queue.enter("a", endpoints(one=1), since=0)
    queue.update("a", ())
    queue.update("a", endpoints(one=1))
    waiting = queue.enter("a", endpoints(one=1), since=0)
    assert waiting.place is None
    queue.close(running)
    assert waiting.place is not None


def test_nothing_is_kept_of_a_model_that_is_gone() -> None:
    queue = Queue(9)
    running = queue.enter("a", endpoints(one=1), since=0)
    leaving = queue.enter("a", endpoints(one=1), since=0)
    queue.update("a", ())
    queue.close(leaving)
    queue.close(running)
    queue.close(running)
    assert queue.keys() == ()
    assert queue.waiting == 0


def test_those_who_wait_are_told_why_they_are_refused() -> None:
    queue = Queue(9)
    told: list[Ticket] = []
    ticket = queue.enter("a", (), since=0)
    ticket.listener = lambda: told.append(ticket)
    error = RuntimeError("no")
    queue.refuse("a", error)
    queue.close(ticket)
    assert (ticket.refused, told, queue.waiting, queue.keys()) == (error, [ticket], 0, ())


def failed(queue: Queue, ticket: Ticket) -> None:
    """What is done with a request whose runner could not be reached; the runner's rest is over at once."""
    place = ticket.place
    assert place is not None
    place.resting = place.doubted = True
    queue.back(ticket)
    queue.wake(ticket.key, place)


def test_an_endpoint_in_doubt_is_tried_by_one_request_until_it_is_reached() -> None:
    queue = Queue(9)
    served = endpoints(one=3)
    first, second, third = (queue.enter("a", served, since=number) for number in range(3))
    for ticket in (second, third, first):
        failed(queue, ticket)
    granted = [ticket for ticket in (first, second, third) if ticket.place]
    assert len(granted) == 1
    assert queue.reached(granted[0])
    assert all(ticket.place for ticket in (first, second, third))
    assert not queue.reached(first)


def test_the_next_request_tries_an_endpoint_in_doubt_when_the_first_has_left() -> None:
    queue = Queue(9)
    served = endpoints(one=3)
    first, second = (queue.enter("a", served, since=number) for number in range(2))
    failed(queue, second)
    failed(queue, first)
    trying, waiting = (first, second) if first.place else (second, first)
    assert waiting.place is None
    queue.close(trying)
    assert waiting.place is not None


def test_an_endpoint_in_doubt_comes_after_all_others() -> None:
    queue = Queue(9)
    served = endpoints(gone=4, well=1)
    first = queue.enter("a", served, since=0)
    failed(queue, first)
    assert first.place is not None
    assert first.place.endpoint.id == "well"
    second = queue.enter("a", served, since=1)
    assert second.place is not None
    assert second.place.endpoint.id == "gone"
