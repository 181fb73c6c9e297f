"""``spec.parameters``: what a Modelfile's PARAMETER lines can say, with Ollama's names and types.

Only what a runner heeds is here; Ollama's ``main_gpu`` and ``use_mmap`` are not, as yet.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

Integer = Annotated[int, Field(ge=-(2**31), le=2**32 - 1)]
"""Ollama's options take 32 bits, seeds with or without a sign."""


class Parameters(TypedDict, total=False):
    """Defaults for requests that do not set the option themselves."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)  # type: ignore[misc]  # pydantic's documented way

    num_ctx: Annotated[int, Field(ge=4, le=16_777_216)]
    num_batch: Annotated[int, Field(ge=1, le=65_536)]
    num_gpu: Annotated[int, Field(ge=-1, le=65_536)]
    num_thread: Annotated[int, Field(ge=0, le=4096)]
    draft_num_predict: Annotated[int, Field(ge=0, le=16)]
    num_keep: Integer
    seed: Integer
    num_predict: Integer
    top_k: Integer
    repeat_last_n: Integer
    top_p: float
    min_p: float
    typical_p: float
    temperature: float
    repeat_penalty: float
    presence_penalty: float
    frequency_penalty: float
    stop: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=32)]
