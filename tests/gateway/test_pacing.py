"""Fast streams rest between their pieces, slow ones are read at once."""

from __future__ import annotations

from collections.abc import Callable

from corral_server.gateway.pacing import FAST, REST, Pacing


class Clock:
    """The part of an event loop that is used, turned by hand."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.timers.append((self.now + delay, callback))

    def turn(self, seconds: float) -> None:
        self.now += seconds
        due = [callback for when, callback in self.timers if when <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for callback in due:
            callback()


class Stream:
    def __init__(self, loop: Clock) -> None:
        self.loop = loop
        self.wrote_at = 0.0
        self.resting = False

    def rest(self) -> None:
        assert not self.resting
        self.resting = True

    def go_on(self) -> None:
        assert self.resting
        self.resting = False


def test_a_stream_as_fast_as_a_model_never_rests() -> None:
    clock = Clock()
    pacing, stream = Pacing(), Stream(clock)
    for _ in range(10):
        clock.turn(0.005)
        pacing.wrote(stream)
        assert not stream.resting


def test_a_fast_stream_rests_after_each_piece_and_goes_on_by_itself() -> None:
    clock = Clock()
    pacing, stream = Pacing(), Stream(clock)
    pacing.wrote(stream)
    clock.turn(0.0005)
    for _ in range(10):
        pacing.wrote(stream)
        assert stream.resting
        clock.turn(REST)
        assert not stream.resting


def test_a_stream_that_turns_slow_rests_no_more() -> None:
    clock = Clock()
    pacing, stream = Pacing(), Stream(clock)
    pacing.wrote(stream)
    pacing.wrote(stream)
    clock.turn(FAST)
    pacing.wrote(stream)
    assert not stream.resting


def test_all_fast_streams_share_one_timer() -> None:
    clock = Clock()
    pacing, streams = Pacing(), [Stream(clock) for _ in range(5)]
    for stream in (*streams, *streams):
        pacing.wrote(stream)
    assert all(stream.resting for stream in streams)
    assert len(clock.timers) == 1
    clock.turn(REST)
    assert not any(stream.resting for stream in streams)
