"""Path prefix in front of every API path, as an Ingress may leave it."""

from __future__ import annotations

import pytest

from corral_core.base.errors import InvalidSetting
from corral_server.gateway.config import GatewayConfig
from tests.support.fake_upstream import fake_upstream
from tests.support.gateway import MemoryDirectory, entry, running_gateway


async def test_the_path_prefix_is_stripped_and_is_optional() -> None:
    async with fake_upstream() as upstream:
        directory = MemoryDirectory.of(entry("tiny", upstream.port))
        async with running_gateway(directory, path_prefix="/llm") as gateway:
            assert (await gateway.http.get("/llm/api/version")).status_code == 200
            for path in ("/", "/llm", "/llm/"):
                assert (await gateway.http.get(path)).text == "Ollama is running"
            assert (await gateway.http.get("/llm/v1/models/tiny")).json()["id"] == "tiny"
            for path in ("/llm/v1/chat/completions", "/v1/chat/completions"):
                assert (await gateway.chat(path=path)).status_code == 200
            for path in ("/llmx/api/version", "/llm/llm/api/version"):
                assert (await gateway.http.get(path)).status_code == 404
    assert [call.path for call in upstream.calls] == ["/v1/chat/completions"] * 2


@pytest.mark.parametrize(("said", "prefix"), [("", ""), ("/", ""), ("/llm", "/llm"), ("/a/b/", "/a/b")])
def test_a_prefix_may_end_with_a_slash(said: str, prefix: str) -> None:
    assert GatewayConfig.from_environment({"CORRAL_PATH_PREFIX": said}).path_prefix == prefix


def test_a_prefix_that_is_not_a_path_is_rejected() -> None:
    with pytest.raises(InvalidSetting, match="CORRAL_PATH_PREFIX"):
        GatewayConfig.from_environment({"CORRAL_PATH_PREFIX": "llm"})
