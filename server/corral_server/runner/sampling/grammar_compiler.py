"""Compiler of grammars into token masks; the adapter of llguidance.

Invariants:
- Compiling happens outside the engine's thread and releases the interpreter lock (GIL).
- A grammar that is not simple is compiled in the worker process first (``grammar_trial``), because llguidance bounds
  neither the time nor the memory of every step of compiling: an ``allOf`` of 20 patterns takes minutes. Only a grammar
  that compiled there within the limits is compiled in the runner, in the same time.
- ``LLParserLimits`` bounds the time and memory of each mask; a grammar beyond them ends its own generation.
- The first mask and the states after some of its tokens are part of compiling, so a grammar that exceeds a limit at
  once is an error before the first step. One that does so later costs one step of up to 20 ms of CPU time, because
  ``prepare_schema`` bounds its size, and ends its own generation.
- A control token is allowed only where a grammar names it as a marker; a token that ends a generation only where the
  grammar is complete.
- A matcher holds the state of one generation and is freed with it. All generations share the tokenizer.

The tokenizer is created at the first constrained request, so that runners without any spend neither its time nor its
memory. Measured on two busy cores: 0.07 s of CPU for 49,152 tokens, 0.7 to 0.9 s for 262,144, with the GIL held.
llguidance's "slices", which make masks within strings faster, are omitted: they double this time and take 0.4 to
0.7 KB for each token, and the sampler computes few masks (``constrained.py``). Worst mask measured with hostile
patterns and 262,144 tokens: 56 ms.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING

from corral_server.runner.isolation.worker_process import WorkerFailed, WorkerProcess, WorkerTimeout, shared_worker
from corral_server.runner.llama.errors import InvalidGrammar
from corral_server.runner.llama.vocabulary import Vocabulary
from corral_server.runner.memory.budget import current_reservation
from corral_server.runner.sampling.grammar import Grammar

if TYPE_CHECKING:
    import numpy as np
    from llguidance import LLMatcher, LLTokenizer
    from numpy.typing import NDArray

_MAX_LEXER_STATES = 50_000
"""Lexer states of a generation with a simple grammar: some for each character of a string with ``maxLength``.
Measured: 0.1 KB for each."""
_MAX_COSTLY_STATES = 10_500
"""Lexer states of a generation with another grammar, at least the remainders of ``multipleOf``. Measured with hostile
patterns: 0.7 KB for each."""
_CHECKED_TOKENS = 4
_COSTLY_BYTES = 7 * 1024 * 1024
"""Memory of these states, which each generation with such a grammar reserves."""
_TRIAL_SECONDS = 0.5
"""CPU time limit of compiling. The schemas of usual programs take 1 to 20 ms."""
_REMEMBERED = 256
"""Grammars whose trial is not repeated; clients send the same schema with every request."""
_OPTIONS = '%llguidance {"no_forcing": true}'
"""Every tokenization of a forced text is allowed, so llguidance never tokenizes."""
_MAX_REASON = 300
"""Characters of llguidance's messages in a response."""
_ERROR = re.compile(r"(?:at \d+\(\d+\): )?(?:failed to compile JSON schema: )?(.*?)(?=\n +\d+ \||$)", re.DOTALL)


class GrammarCompiler:
    """Compiles grammars for the vocabulary of one model. Safe from any thread."""

    def __init__(self, read_vocabulary: Callable[[], Vocabulary], worker: WorkerProcess | None = None) -> None:
        """``read_vocabulary`` is called at the first grammar. ``worker`` runs the trials."""
        self._read_vocabulary = read_vocabulary
        self._worker = worker or shared_worker()
        self._tried: dict[bytes, None] = {}
        self._lock = threading.Lock()
        self._tokenizer: LLTokenizer | None = None
        self._vocab_size = 0
        self._ends = frozenset[int]()
        self._control: dict[bytes, int] = {}

    def compile(self, grammar: Grammar) -> GrammarMatcher:
        """Return a matcher at the beginning of the answer.

        Raises InvalidGrammar, which names what is not supported, and ApiError 413 or 503 without memory for it.
        """
        if not grammar.is_simple:
            self._try_in_worker(grammar)
            current_reservation().grow(_COSTLY_BYTES)
        return self.compile_here(grammar)

    def compile_here(self, grammar: Grammar) -> GrammarMatcher:
        """As ``compile``, without a trial in the worker process."""
        from llguidance import LLMatcher, LLParserLimits

        tokenizer = self._made()
        states = _MAX_LEXER_STATES if grammar.is_simple else _MAX_COSTLY_STATES
        limits = LLParserLimits(max_lexer_states=states, verbose_errors=False)
        rules = (_OPTIONS, grammar.rules, *map(self._marker_rules, range(len(grammar.markers)), grammar.markers))
        matcher = LLMatcher(tokenizer, "\n".join(rules), log_level=0, limits=limits)
        if matcher.is_error():
            raise InvalidGrammar(f"the JSON schema is not supported: {_reason(matcher.get_error())}")
        compiled = GrammarMatcher(matcher, self._ends, self._vocab_size)
        compiled.check_start()
        return compiled

    def _try_in_worker(self, grammar: Grammar) -> None:
        """Compile in the worker process, unless the grammar was tried before. Raises InvalidGrammar past a limit."""
        arguments = {"rules": grammar.rules, "markers": list(grammar.markers)}
        digest = hashlib.sha256("\0".join((grammar.rules, *grammar.markers)).encode("utf-8", "surrogatepass")).digest()
        if digest in self._tried:
            return
        try:
            self._worker.call("grammar", arguments, seconds=_TRIAL_SECONDS)
        except WorkerTimeout:
            raise InvalidGrammar(
                f"the JSON schema takes longer than {_TRIAL_SECONDS:g} s to compile; use fewer pattern, allOf and enum"
            ) from None
        except WorkerFailed as error:
            raise InvalidGrammar(f"the JSON schema cannot be compiled within the limits: {error}") from None
        with self._lock:
            self._tried[digest] = None
            if len(self._tried) > _REMEMBERED:
                del self._tried[next(iter(self._tried))]

    def _marker_rules(self, index: int, marker: str) -> str:
        token = self._control.get(marker.encode())
        if token is not None:
            return f"marker_{index}: <[{token}]>\nuntil_{index}: /(?s:.*)/ <[{token}]>\n"
        text = json.dumps(marker)
        return f"marker_{index}: {text}\nuntil_{index}[suffix={text}]: /(?s:.*)/\n"

    def _made(self) -> LLTokenizer:
        with self._lock:
            if self._tokenizer is None:
                vocabulary = self._read_vocabulary()
                self._vocab_size = len(vocabulary.texts)
                self._control = {vocabulary.texts[token]: token for token in vocabulary.control}
                self._ends = frozenset(vocabulary.ends)
                self._tokenizer = _tokenizer(vocabulary)
            return self._tokenizer


class GrammarMatcher:
    """State of one generation within its grammar. Used by one thread at a time."""

    def __init__(self, matcher: LLMatcher, ends: frozenset[int], vocab_size: int) -> None:
        self._matcher = matcher
        self._ends = ends
        self._vocab_size = vocab_size

    def check_start(self) -> None:
        """Compute the first mask, and the states after its first tokens, in most vocabularies the shortest.

        Raises InvalidGrammar if that exceeds the limits.
        """
        mask = self._matcher.compute_bitmask()
        self._check()
        allowed = (8 * byte + bit for byte, bits in enumerate(mask) if bits for bit in range(8) if bits >> bit & 1)
        for token in islice(allowed, _CHECKED_TOKENS):
            after = GrammarMatcher(self._matcher.deep_copy(), self._ends, self._vocab_size)
            after.consume(token)

    def allows(self, token: int) -> bool:
        """Return whether the token may come next. May be False for an end token that ``allowed_tokens`` has."""
        if self._matcher.is_stopped():
            return token in self._ends
        return self._matcher.validate_tokens([token]) == 1

    def allowed_tokens(self) -> NDArray[np.int64]:
        """Return the ids of the tokens that may come next, ascending and at least one.

        Raises InvalidGrammar if there is none, or if finding them exceeds the limits.
        """
        import numpy as np

        mask = np.frombuffer(self._matcher.compute_bitmask(), dtype=np.uint8)
        self._check()
        found = np.flatnonzero(np.unpackbits(mask, count=self._vocab_size, bitorder="little"))
        if not len(found):
            raise InvalidGrammar("the grammar admits no token of the model's vocabulary here")
        return found

    def consume(self, token: int) -> None:
        """Advance by an allowed token. Raises InvalidGrammar if that exceeds the limits."""
        self._matcher.consume_token(token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise InvalidGrammar(f"the grammar cannot be followed: {_reason(self._matcher.get_error())}")


def _tokenizer(vocabulary: Vocabulary) -> LLTokenizer:
    from llguidance import LLTokenizer, TokenizerWrapper

    tokenizer = LLTokenizer(TokenizerWrapper(_Tokens(vocabulary)), eos_token=[*vocabulary.ends] or None, slices=[])
    vocabulary.texts.clear()  # the wrapper, which llguidance keeps, refers to them; llguidance has copied them
    return tokenizer


class _Tokens:
    """What llguidance's TokenizerWrapper reads."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.tokens = vocabulary.texts
        self.special_token_ids = [*vocabulary.control, *vocabulary.ends]
        self.eos_token_id = next(iter(vocabulary.ends), None)

    def __call__(self, text: object) -> list[int]:
        """Never called while grammars have ``no_forcing``."""
        raise NotImplementedError


def _reason(error: str) -> str:
    """Return llguidance's message in one line, without the position in the grammar and the middle of a long one.

    The message of an invalid pattern begins with the pattern and ends with the reason.
    """
    found = _ERROR.match(error)
    reason = " ".join((found[1] if found else error).split())
    if reason.startswith("Unable to determine if regex is empty"):
        return "the patterns that a value must match at the same time are too complex; use fewer pattern in allOf"
    if len(reason) > _MAX_REASON:
        reason = f"{reason[: _MAX_REASON // 2]} ... {reason[-_MAX_REASON // 2 :]}"
    return f"pattern: {reason}" if reason.startswith("regex parse error") else reason
