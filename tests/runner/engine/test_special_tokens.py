"""Special tokens of a model, from which prompts without a chat template are put together."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.llama.vocabulary import SpecialTokens
from tests.support.tiny_model import write_tiny_model

pytestmark = pytest.mark.process

FIM = {"fim_pre": 1, "fim_suf": 2, "fim_mid": 3, "fim_rep": 4, "fim_sep": 5}


def test_special_tokens_are_those_of_the_file(tmp_path: Path) -> None:
    overrides = {f"tokenizer.ggml.{name}_token_id": token for name, token in FIM.items()}
    path = write_tiny_model(tmp_path, context_length=64, overrides=overrides)
    engine = LlamaEngine.load(path, EngineOptions(slots=1, threads=1))
    try:
        assert engine.special_tokens == SpecialTokens(
            bos=257,
            eos=258,
            fim_prefix=1,
            fim_suffix=2,
            fim_middle=3,
            fim_repository=4,
            fim_separator=5,
        )
        assert engine.rerank_template == ""
        assert (engine.token_bytes(ord("A")), engine.token_bytes(257)) == (b"A", b"<s>")
        with pytest.raises(ValueError, match="vocabulary"):
            engine.token_bytes(10**6)
    finally:
        engine.close()
