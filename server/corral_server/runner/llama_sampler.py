"""llama.cpp's samplers: single ones, chains of them, grammars. Part of the adapter ``llama.py``.

What always holds: a handle has one owner, and ``close`` frees it once.
"""

from __future__ import annotations

import ctypes
from typing import Protocol

from corral_server.runner.llama_library import C


class Candidates(Protocol):
    """An array of ``llama_token_data`` (id int32, logit float32, p float32) in memory that stays where it is."""

    @property
    def address(self) -> int: ...

    def __len__(self) -> int: ...


class Sampler:
    """One sampler or a chain of them; frees what it owns."""

    def __init__(self, handle: object) -> None:
        self.handle = handle

    @classmethod
    def chain(cls, *links: object) -> Sampler:
        """Takes the links (of ``link``) over; they are applied in this order."""
        params = C.llama_sampler_chain_default_params()
        params.no_perf = True
        chain = C.llama_sampler_chain_init(params)
        for link in links:
            C.llama_sampler_chain_add(chain, link)
        return cls(chain)

    def apply(self, candidates: Candidates) -> int:
        """Filters and orders the candidates in place; returns the chosen token, -1 when this sampler chooses none."""
        data = ctypes.cast(candidates.address, C.llama_token_data_p)
        array = C.llama_token_data_array(data=data, size=len(candidates), selected=-1, sorted=False)
        C.llama_sampler_apply(self.handle, ctypes.byref(array))
        return int(array.data[array.selected].id) if array.selected >= 0 else -1

    def accept(self, token: int) -> None:
        C.llama_sampler_accept(self.handle, token)

    def close(self) -> None:
        if self.handle:
            C.llama_sampler_free(self.handle)
            self.handle = None


def link(kind: str, *arguments: float) -> object:
    """One link of a chain: ``link("top_k", 40)`` is ``llama_sampler_init_top_k(40)``."""
    return getattr(C, f"llama_sampler_init_{kind}")(*arguments)
