"""``spec.parameters``: a Modelfile's PARAMETER values, with Ollama's names and types (``api/types.go``, ``Options``).

Only parameters that the runner implements exist; Ollama's ``main_gpu`` and ``use_mmap`` do not yet.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, with_config
from typing_extensions import TypedDict

OptionInteger = Annotated[int, Field(ge=-(2**31), le=2**32 - 1)]
"""Ollama's integer options have 32 bits, signed or, for seeds, unsigned."""


@with_config(extra="forbid", strict=True, allow_inf_nan=False)
class Parameters(TypedDict, total=False):
    """Defaults for options that a request does not set."""

    num_ctx: Annotated[int, Field(ge=4, le=16_777_216)]
    num_batch: Annotated[int, Field(ge=1, le=65_536)]
    num_gpu: Annotated[int, Field(ge=-1, le=65_536)]
    num_thread: Annotated[int, Field(ge=0, le=4096)]
    draft_num_predict: Annotated[int, Field(ge=0, le=16)]
    num_keep: OptionInteger
    seed: OptionInteger
    num_predict: OptionInteger
    top_k: OptionInteger
    repeat_last_n: OptionInteger
    top_p: float
    min_p: float
    typical_p: float
    temperature: float
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    stop: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=32)]
