"""Settings of downloads from the environment."""

from __future__ import annotations

import pytest

from corral_core.base.errors import InvalidSetting
from corral_server.pull.download.options import DownloadOptions, download_options
from corral_server.pull.http.settings import network_settings


def test_the_defaults_are_those_of_the_options() -> None:
    assert download_options({}) == DownloadOptions()


@pytest.mark.parametrize(("text", "rate"), [("0", None), ("10M", 10_000_000), ("1Ki", 1024), ("2048", 2048)])
def test_the_rate_limit_is_a_quantity(text: str, rate: int | None) -> None:
    assert download_options({"CORRAL_PULL_RATE_LIMIT": text}).rate_limit == rate


@pytest.mark.parametrize("text", ["fast", "-1M", "100", "1m", "10MB/s"])
def test_a_rate_limit_that_is_not_a_usable_quantity(text: str) -> None:
    with pytest.raises(InvalidSetting, match=r"CORRAL_PULL_RATE_LIMIT=.* must be a quantity of bytes per second"):
        download_options({"CORRAL_PULL_RATE_LIMIT": text})


@pytest.mark.parametrize("text", ["1s", "30s", "2m"])
def test_a_connection_is_not_given_up_before_the_clients_own_timeout(text: str) -> None:
    environ = {"CORRAL_PULL_STALL_TIMEOUT": text}
    assert download_options(environ).stall > network_settings(environ).stall_timeout
