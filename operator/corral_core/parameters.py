"""``spec.parameters``: what a Modelfile's PARAMETER lines can say, with Ollama's names and types."""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

Integer = Annotated[int, Field(ge=-(2**31), lt=2**32)]


class Parameters(TypedDict, total=False):
    """Defaults for requests that do not set the option themselves."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)  # type: ignore[misc]  # pydantic's documented way

    num_ctx: Integer
    num_batch: Integer
    num_gpu: Integer
    main_gpu: Integer
    num_thread: Integer
    draft_num_predict: Integer
    use_mmap: bool
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
    stop: list[str]
