"""Read pacing: fast streams are paused between their pieces, slow ones are read at once."""

from __future__ import annotations

from collections.abc import Callable

from corral_server.gateway.proxy.read_pacing import FAST_INTERVAL, PAUSE, ReadPacing


class Clock:
    """A clock and its timers, advanced by the test."""

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
        self.last_write = 0.0
        self.paused = False

    def pause_reading(self) -> None:
        assert not self.paused
        self.paused = True

    def resume_reading(self) -> None:
        assert self.paused
        self.paused = False


def test_a_stream_at_the_speed_of_a_model_is_never_paused() -> None:
    clock = Clock()
    pacing, stream = ReadPacing(), Stream(clock)
    for _ in range(10):
        clock.turn(0.005)
        pacing.piece_written(stream)
        assert not stream.paused


def test_a_fast_stream_is_paused_after_each_piece() -> None:
    clock = Clock()
    pacing, stream = ReadPacing(), Stream(clock)
    pacing.piece_written(stream)
    clock.turn(0.0005)
    for _ in range(10):
        pacing.piece_written(stream)
        assert stream.paused
        clock.turn(PAUSE)
        assert not stream.paused


def test_a_stream_that_becomes_slow_is_not_paused() -> None:
    clock = Clock()
    pacing, stream = ReadPacing(), Stream(clock)
    pacing.piece_written(stream)
    pacing.piece_written(stream)
    clock.turn(FAST_INTERVAL)
    pacing.piece_written(stream)
    assert not stream.paused


def test_all_fast_streams_share_one_timer() -> None:
    clock = Clock()
    pacing, streams = ReadPacing(), [Stream(clock) for _ in range(5)]
    for stream in (*streams, *streams):
        pacing.piece_written(stream)
    assert all(stream.paused for stream in streams)
    assert len(clock.timers) == 1
    clock.turn(PAUSE)
    assert not any(stream.paused for stream in streams)
