"""Addresses of the hubs from the environment."""

from __future__ import annotations

import pytest

from corral_core.base.errors import InvalidSetting
from corral_server.pull.resolvers.hubs.endpoints import hub_endpoints


def test_the_public_hubs_are_the_default() -> None:
    assert hub_endpoints({}) == {"hf": "https://huggingface.co", "modelscope": "https://modelscope.cn"}


def test_mirrors_may_have_a_port_and_a_path() -> None:
    environ = {
        "HF_ENDPOINT": " https://repo.example:8443/artifactory/api/huggingfaceml/hub/ ",
        "MODELSCOPE_ENDPOINT": "https://www.modelscope.ai",
    }
    assert hub_endpoints(environ) == {
        "hf": "https://repo.example:8443/artifactory/api/huggingfaceml/hub",
        "modelscope": "https://www.modelscope.ai",
    }


@pytest.mark.parametrize(
    "value", ["hf-mirror.com", "ftp://x", "https://x/?a=b", "https://x y", "https://", "https://x#"]
)
def test_an_address_that_is_not_a_url(value: str) -> None:
    with pytest.raises(InvalidSetting, match=r"HF_ENDPOINT=.* is not allowed: it must be a URL"):
        hub_endpoints({"HF_ENDPOINT": value})


def test_an_address_has_no_credentials() -> None:
    with pytest.raises(InvalidSetting, match="must not contain credentials") as error:
        hub_endpoints({"HF_ENDPOINT": f"https://user:{'secret'}@mirror"})
    assert "secret" not in str(error.value)
