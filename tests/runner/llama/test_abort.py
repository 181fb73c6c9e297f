"""A runner whose weights make llama.cpp abort: it ends with a termination message and never by a signal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest

from tests.support.gguf_files import Value
from tests.support.runner_process import runner_environment, runner_process
from tests.support.tiny_model import write_tiny_model

pytestmark = pytest.mark.process


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"llama.block_count": 2**31 - 1}, "n_layer_all <= LLAMA_MAX_LAYERS"),
        ({"llama.expert_used_count": 2}, "n_expert_used_max <= hparams.n_expert"),
        ({"tokenizer.ggml.tokens": ["a"] * 259}, "id_to_token.size() == token_to_id.size()"),
        ({"general.alignment": 16}, "buffer pointer must be aligned"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_assertion_during_the_load_is_in_the_termination_message(
    tmp_path: Path, change: Mapping[str, Value], words: str
) -> None:
    log = tmp_path / "log"
    path = write_tiny_model(tmp_path, overrides=change)
    with runner_process(runner_environment(f"file://{path}", CORRAL_TERMINATION_LOG=str(log))) as runner:
        assert runner.wait_for_exit() == 1
    assert log.read_text().startswith("llama.cpp gave up: ")
    assert words in log.read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"llama.attention.layer_norm_rms_epsilon": float("nan")}, "ops.cpp"),
        ({"tokenizer.ggml.model": "llama"}, "an exception of type out_of_range"),
    ],
    ids=["assertion", "exception"],
)
def test_a_failure_at_the_first_request_is_in_the_termination_message(
    tmp_path: Path, change: Mapping[str, Value], words: str
) -> None:
    log = tmp_path / "log"
    path = write_tiny_model(tmp_path, overrides=change)
    with runner_process(runner_environment(f"file://{path}", CORRAL_TERMINATION_LOG=str(log))) as runner:
        with runner.wait_ready().client() as client, pytest.raises(httpx.TransportError):
            client.post("/api/generate", json={"model": "smollm2", "prompt": "a b \x01", "raw": True})
        assert runner.wait_for_exit() == 1
    assert log.read_text().startswith("llama.cpp gave up: ")
    assert words in log.read_text()
