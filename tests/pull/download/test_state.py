"""States of downloads: the last one that was written whole is read."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_server.pull.download.ranges import RangeSet
from corral_server.pull.download.state import SLOT, StateFile, load_state


def save(path: Path, *ranges: tuple[int, int], version: str = "v", size: int | None = 100) -> None:
    file = StateFile(path)
    file.save(RangeSet(ranges), identity="file", version=version, size=size)
    file.close()


def test_the_last_state_is_read(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for end in range(1, 6):
        save(path, (0, end), (end + 2, 50))
        state = load_state(path)
        assert state is not None
        assert (state.identity, state.version, state.size, list(state.done())) == (
            "file",
            "v",
            100,
            [(0, end), (end + 2, 50)],
        )
    assert path.stat().st_size == 2 * SLOT


@pytest.mark.parametrize("kept", [0, 10, SLOT - 1])
def test_a_torn_write_leaves_the_state_before(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "state"
    save(path, (0, 1))
    save(path, (0, 2))
    before = path.read_bytes()
    save(path, (0, 3))
    after = path.read_bytes()
    slot = next(number for number in range(2) if after[number * SLOT :][:SLOT] != before[number * SLOT :][:SLOT])
    torn = bytearray(after)
    torn[slot * SLOT : (slot + 1) * SLOT] = after[slot * SLOT :][:kept].ljust(SLOT, b"\0")
    path.write_bytes(torn)
    state = load_state(path)
    assert state is not None
    assert list(state.done()) == [(0, 2)]


def test_a_new_file_has_no_state_and_takes_its_room_at_once(tmp_path: Path) -> None:
    assert load_state(tmp_path / "state") is None
    StateFile(tmp_path / "state").close()
    assert (tmp_path / "state").stat().st_size == 2 * SLOT
    assert load_state(tmp_path / "state") is None


def test_the_longest_state_fits_a_slot(tmp_path: Path) -> None:
    path, far = tmp_path / "state", 2**62
    ranges = [(far + 4 * number, far + 4 * number + 2) for number in range(1000)]
    file = StateFile(path)
    for _ in range(2):
        file.save(RangeSet(ranges), identity="\U0001f600" * 999, version="\U0001f600" * 256, size=None)
    file.close()
    assert path.stat().st_size == 2 * SLOT
    state = load_state(path)
    assert state is not None
    assert list(state.done()) == ranges[: len(state.done())]
    assert len(state.done()) == 200


def test_a_version_that_is_too_long_is_not_known(tmp_path: Path) -> None:
    save(tmp_path / "state", version="x" * 257)
    state = load_state(tmp_path / "state")
    assert state is not None
    assert state.version == ""


@given(st.binary(max_size=200), st.integers(0, 2 * SLOT - 1))
def test_damage_is_no_error(tmp_path_factory: pytest.TempPathFactory, damage: bytes, position: int) -> None:
    path = tmp_path_factory.mktemp("state") / "state"
    save(path, (0, 1))
    save(path, (0, 2))
    data = bytearray(path.read_bytes())
    data[position : position + len(damage)] = damage
    path.write_bytes(data)
    state = load_state(path)
    assert state is None or list(state.done()) in ([(0, 1)], [(0, 2)])


def test_a_state_that_is_no_regular_file_is_none(tmp_path: Path) -> None:
    """A pipe would block its reader."""
    os.mkfifo(tmp_path / "state")
    loaded = []
    reader = threading.Thread(target=lambda: loaded.append(load_state(tmp_path / "state")), daemon=True)
    reader.start()
    reader.join(10)
    assert loaded == [None]
