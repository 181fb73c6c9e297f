"""Pull status: what a puller sends, and its termination messages."""

from __future__ import annotations

import json

import pytest

from corral_core.contracts.pull_status import (
    MAX_FAILURE,
    MAX_PULL_STATUS_BYTES,
    PullFailure,
    PullStatus,
    decode_failure,
    decode_pulled,
    encode_failure,
    encode_pulled,
    parse_pull_status,
)

STATUS = PullStatus(430, 1000, 57.0, "pulling")


def test_a_status_round_trips() -> None:
    assert parse_pull_status(json.dumps(STATUS.to_json()).encode()) == STATUS


def test_percent_is_rounded_down_and_the_time_left_follows_from_the_rate() -> None:
    assert (STATUS.percent, STATUS.seconds_left) == (43, 10)
    assert PullStatus(999, 1000, 1.0).percent == 99


@pytest.mark.parametrize("status", [PullStatus(5), PullStatus(5, 10)])
def test_without_total_or_rate_there_is_no_time_left(status: PullStatus) -> None:
    assert status.seconds_left is None


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        b'{"completed": -1}',
        b'{"completed": 1.5}',
        b'{"completed": 1, "total": 99999999999999999}',
        b'{"completed": 1, "rate": 1e400}',
        b'{"completed": 1, "rate": NaN}',
        b'{"completed": 1, "stage": 7}',
        b'{"completed": 1, "stage": "' + b"a" * MAX_PULL_STATUS_BYTES + b'"}',
        b"[" * 3000,
    ],
)
def test_whatever_a_puller_sends_only_a_status_is_accepted(line: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_pull_status(line)


def test_the_snapshots_of_every_source_fit_into_a_termination_message() -> None:
    ids = tuple(f"{number:032x}" for number in range(17))
    message = encode_pulled(ids)
    assert len(message) <= 4096
    assert decode_pulled(message + "\n") == ids


@pytest.mark.parametrize("text", ["", "Killed", "corral-snapshots:", "corral-snapshots:abc", "0" * 32])
def test_another_message_has_no_snapshots(text: str) -> None:
    with pytest.raises(ValueError, match="no snapshots"):
        decode_pulled(text)


@pytest.mark.parametrize("reason", list(PullFailure))
def test_a_failure_has_its_reason(reason: PullFailure) -> None:
    assert decode_failure(encode_failure(reason, "source 'hf://a/b': not\nfound")) == (
        reason,
        "source 'hf://a/b': not found",
    )


def test_a_process_that_was_killed_is_started_again() -> None:
    assert decode_failure("Traceback: no memory") == (PullFailure.RETRYING, "Traceback: no memory")


def test_a_failure_is_bounded() -> None:
    assert len(encode_failure(PullFailure.FAILED, "a" * 10_000)) == MAX_FAILURE
