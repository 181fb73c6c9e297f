"""Tensors of small models with random weights, which llama.cpp loads, by the parts of a decoder."""

from __future__ import annotations

import random
from array import array
from dataclasses import replace

from tests.support.gguf_files import FakeTensor

EMBEDDING, HEADS, KV_HEADS, HEAD, INNER, LAYERS, VOCABULARY = 64, 4, 2, 16, 96, 6, 259
EXPERTS = 4
STATE = 16
"""Width of the state of a recurrent layer's head."""


class RandomWeights:
    """Random tensors, with heads of the size ``head``."""

    def __init__(self, head: int = HEAD) -> None:
        self._draw = random.Random(7)
        self._head = head

    def matrix(self, name: str, *shape: int) -> FakeTensor:
        count, data = 1, array("f")
        for size in shape:
            count *= size
        data.extend(self._draw.gauss(0, shape[0] ** -0.5) for _ in range(count))
        return FakeTensor(name, shape, data=data.tobytes())

    def vector(self, name: str, size: int, value: float = 1.0) -> FakeTensor:
        return FakeTensor(name, (size,), data=array("f", [value] * size).tobytes())

    def outer(self, *, output: bool = True) -> list[FakeTensor]:
        tensors = [
            self.matrix("token_embd.weight", EMBEDDING, VOCABULARY),
            self.vector("output_norm.weight", EMBEDDING),
        ]
        return [*tensors, self.matrix("output.weight", EMBEDDING, VOCABULARY)] if output else tensors

    def attention(self, block: str, *, bias: bool = False) -> list[FakeTensor]:
        head = self._head
        sizes = {"attn_q": HEADS * head, "attn_k": KV_HEADS * head, "attn_v": KV_HEADS * head}
        tensors = [self.matrix(f"{block}{name}.weight", EMBEDDING, size) for name, size in sizes.items()]
        tensors.append(self.matrix(f"{block}attn_output.weight", HEADS * head, EMBEDDING))
        if bias:
            tensors += [self.vector(f"{block}{name}.bias", size, 0.1) for name, size in sizes.items()]
            tensors.append(self.vector(f"{block}attn_output.bias", EMBEDDING, 0.1))
        return tensors

    def norms(self, block: str, *names: str) -> list[FakeTensor]:
        return [
            self.vector(f"{block}{name}.weight", self._head if name in ("attn_q_norm", "attn_k_norm") else EMBEDDING)
            for name in names
        ]

    def dense(self, block: str) -> list[FakeTensor]:
        shapes = {"ffn_gate": (EMBEDDING, INNER), "ffn_up": (EMBEDDING, INNER), "ffn_down": (INNER, EMBEDDING)}
        return [self.matrix(f"{block}{name}.weight", *shape) for name, shape in shapes.items()]

    def experts(self, block: str, *, bias: bool = False) -> list[FakeTensor]:
        tensors = [self.matrix(f"{block}ffn_gate_inp.weight", EMBEDDING, EXPERTS)]
        shapes = {"ffn_gate_exps": (EMBEDDING, INNER), "ffn_up_exps": (EMBEDDING, INNER)}
        shapes["ffn_down_exps"] = (INNER, EMBEDDING)
        for name, shape in shapes.items():
            tensors.append(self.matrix(f"{block}{name}.weight", *shape, EXPERTS))
            if bias:
                tensors.append(self.matrix(f"{block}{name}.bias", shape[1], EXPERTS))
        return [*tensors, self.vector(f"{block}ffn_gate_inp.bias", EXPERTS, 0.1)] if bias else tensors

    def shared_expert(self, block: str) -> list[FakeTensor]:
        return [replace(one, name=one.name.replace(".weight", "_shexp.weight")) for one in self.dense(block)]

    def tower(self) -> list[FakeTensor]:
        return [self.matrix("v.blk.0.attn_q.weight", 32, 32), self.vector("mm.norm.weight", 32)]
