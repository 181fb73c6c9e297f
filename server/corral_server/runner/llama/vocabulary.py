"""Vocabulary of a model and its special tokens, without llama.cpp."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """All tokens of a model. ``texts`` are bytes, perhaps a part of a character.

    ``control`` are the tokens whose text is only their name (``<|im_start|>``), ``ends`` those that end a generation.
    """

    texts: list[bytes]
    control: tuple[int, ...]
    ends: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Tokens from which prompts are put together, -1 where the model has none.

    ``adds_bos``, ``adds_eos`` and ``adds_sep``: the model's tokenizer adds that token to a text. The others mark the
    parts of a fill-in-the-middle prompt.
    """

    bos: int = -1
    eos: int = -1
    sep: int = -1
    adds_bos: bool = False
    adds_eos: bool = False
    adds_sep: bool = False
    fim_prefix: int = -1
    fim_suffix: int = -1
    fim_middle: int = -1
    fim_repository: int = -1
    fim_separator: int = -1
