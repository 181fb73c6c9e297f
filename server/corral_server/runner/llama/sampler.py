"""llama.cpp's samplers: single ones and chains of them.

Invariant: a handle has one owner, and ``close`` frees it once.
"""

from __future__ import annotations

import ctypes
from typing import Protocol

from corral_server.runner.llama.library import C


class Candidates(Protocol):
    """An array of ``llama_token_data`` (id int32, logit float32, p float32) at a fixed address."""

    @property
    def address(self) -> int: ...

    def __len__(self) -> int: ...


class LlamaSampler:
    """A sampler or a chain of samplers; owns the handle."""

    def __init__(self, handle: object) -> None:
        self.handle = handle

    @classmethod
    def chain(cls, *stages: object) -> LlamaSampler:
        """Take ownership of the stages (of ``stage``), which are applied in this order."""
        params = C.llama_sampler_chain_default_params()
        params.no_perf = True
        chain = C.llama_sampler_chain_init(params)
        for one in stages:
            C.llama_sampler_chain_add(chain, one)
        return cls(chain)

    def apply(self, candidates: Candidates) -> int:
        """Filter and sort the candidates in place; return the selected token, -1 when this sampler selects none."""
        data = ctypes.cast(candidates.address, C.llama_token_data_p)
        array = C.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
        C.llama_sampler_apply(self.handle, ctypes.byref(array))
        return int(array.data[array.selected].id) if array.selected >= 0 else -1

    def accept(self, token: int) -> None:
        """Update the samplers' state with the chosen token."""
        C.llama_sampler_accept(self.handle, token)

    def close(self) -> None:
        if self.handle:
            C.llama_sampler_free(self.handle)
            self.handle = None


def stage(kind: str, *arguments: float) -> object:
    """Make one stage of a chain: ``stage("top_k", 40)`` calls ``llama_sampler_init_top_k(40)``."""
    return getattr(C, f"llama_sampler_init_{kind}")(*arguments)
