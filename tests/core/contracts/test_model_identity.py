"""Identity of a Model in requests to its runners."""

from __future__ import annotations

import pytest

from corral_core.contracts.model_identity import is_addressed_to, model_identity

UID = "0c7b3d1e-6a35-4f5c-9d0a-1b2c3d4e5f60"
OWN = model_identity("team/tiny", UID)


@pytest.mark.parametrize("header", [OWN, "team/tiny"])
def test_a_request_for_the_model_is_its_own(header: str) -> None:
    assert is_addressed_to(header, OWN)
    assert is_addressed_to(header, "team/tiny"), "a Model without a uid"


@pytest.mark.parametrize(
    "header",
    [
        "",
        " ",
        f" {UID}",
        "team/other",
        "other/tiny",
        f"other/tiny {UID}",
        "team/tiny another-uid",
        "TEAM/tiny",
        "x" * 9999,
    ],
)
def test_any_other_request_is_not(header: str) -> None:
    assert not is_addressed_to(header, OWN)


@pytest.mark.parametrize("uid", ["", "a\r\nhost: b", "a b", "x" * 65, "é"])
def test_a_uid_that_is_not_one_is_left_out(uid: str) -> None:
    assert model_identity("team/tiny", uid) == "team/tiny"
