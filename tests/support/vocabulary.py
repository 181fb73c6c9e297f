"""A vocabulary of single bytes with a few control tokens, for grammars without a model."""

from __future__ import annotations

from corral_server.runner.llama.vocabulary import Vocabulary
from corral_server.runner.sampling.grammar import Grammar
from corral_server.runner.sampling.grammar_compiler import GrammarCompiler

CONTROL = ("</s>", "<|end|>", "<|channel|>", "<|message|>", "<|start|>", "[TOOL_CALLS]")
"""Tokens from 256 on; the first one ends a generation."""
END = 256


def byte_vocabulary() -> Vocabulary:
    """Return tokens 0 to 255 for the bytes of UTF-8, then the control tokens."""
    texts = [bytes([byte]) for byte in range(256)] + [text.encode() for text in CONTROL]
    return Vocabulary(texts, tuple(range(256, 256 + len(CONTROL))), (END,))


BYTE_COMPILER = GrammarCompiler(byte_vocabulary)


def admits(grammar: Grammar, *parts: str) -> bool:
    """Return whether the grammar admits exactly these parts; the name of a control token stands for that token."""
    matcher = BYTE_COMPILER.compile(grammar)
    tokens = [t for p in parts for t in ([256 + CONTROL.index(p)] if p in CONTROL else p.encode())]
    for token in tokens:
        if token not in matcher.allowed_tokens():
            return False
        matcher.consume(token)
    return END in matcher.allowed_tokens()
