"""Trial of a grammar in the worker process: it shows whether compiling stays within the limits.

The vocabulary has a token for each byte: the time and memory of compiling do not depend on the model's, except for the
masks, which ``LLParserLimits`` bounds. Other errors are left to the runner, which finds them in the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache

from corral_server.runner.llama.errors import InvalidGrammar
from corral_server.runner.llama.vocabulary import Vocabulary
from corral_server.runner.sampling.grammar import Grammar
from corral_server.runner.sampling.grammar_compiler import GrammarCompiler

_END = 256


def perform(arguments: Mapping[str, object]) -> bytes:
    """Compile a grammar; the operation ``grammar`` of the worker process."""
    rules, markers = arguments["rules"], arguments["markers"]
    assert isinstance(rules, str), "the runner sends the rules as text"
    assert isinstance(markers, list), "the runner sends the markers as a list"
    with suppress(InvalidGrammar):
        _compiler().compile_here(Grammar(rules, tuple(map(str, markers))))
    return b""


@cache
def _compiler() -> GrammarCompiler:
    return GrammarCompiler(lambda: Vocabulary([*(bytes([byte]) for byte in range(256)), b"</s>"], (_END,), (_END,)))
