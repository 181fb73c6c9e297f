"""Budget of the memory that requests hold."""

from __future__ import annotations

import pytest

from corral_server.runner.memory.budget import NO_MEMORY, SMALL_REQUEST, TOO_LARGE, RequestMemory, Reservation
from corral_server.wire.errors import ApiError

MIB = 1 << 20


def test_a_request_that_never_fits_is_refused_with_413() -> None:
    memory = RequestMemory(40 * MIB)
    with pytest.raises(
        ApiError, match=r"takes 31 MiB of memory, more than the 30 MiB .*resources\.limits\.memory"
    ) as got:
        Reservation(memory).grow(31 * MIB)
    assert (got.value.status, got.value.retry_after) == (413, None)
    assert (memory.used, memory.refused) == (0, {TOO_LARGE: 1, NO_MEMORY: 0})


def test_a_request_that_does_not_fit_at_the_moment_is_refused_with_503() -> None:
    memory = RequestMemory(40 * MIB)
    first, second = Reservation(memory), Reservation(memory)
    first.grow(20 * MIB)
    with pytest.raises(ApiError, match="use all of its memory, please try again") as got:
        second.grow(11 * MIB)
    assert (got.value.status, got.value.retry_after) == (503, 5)
    assert memory.refused == {TOO_LARGE: 0, NO_MEMORY: 1}
    first.release()
    second.grow(11 * MIB)
    assert memory.used == 11 * MIB


def test_large_requests_leave_the_last_quarter_to_small_ones() -> None:
    memory = RequestMemory(40 * MIB)
    Reservation(memory).grow(30 * MIB)
    Reservation(memory).grow(SMALL_REQUEST)
    assert Reservation(memory).try_grow(SMALL_REQUEST + 1) == NO_MEMORY


def test_a_reservation_is_returned_once() -> None:
    memory = RequestMemory(40 * MIB)
    reservation = Reservation(memory)
    reservation.grow(2 * MIB)
    reservation.shrink(MIB)
    assert memory.used == MIB
    reservation.release()
    reservation.release()
    assert memory.used == 0
