"""Constrained decoding with the real model: answers follow the grammar, and sampling is otherwise unchanged."""

from __future__ import annotations

import gc
import json
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from corral_server.runner.engine.contexts import EngineOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.generation import GenerationTask
from corral_server.runner.llama.context import LlamaContext
from corral_server.runner.llama.errors import InvalidGrammar
from corral_server.runner.llama.model import LlamaModel
from corral_server.runner.llama.sampler import LlamaSampler
from corral_server.runner.sampling.candidates import CandidateArray
from corral_server.runner.sampling.constrained import ConstrainedSampler
from corral_server.runner.sampling.grammar import Grammar
from corral_server.runner.sampling.grammar_compiler import GrammarCompiler, GrammarMatcher
from corral_server.runner.sampling.lark import json_grammar
from corral_server.runner.sampling.parameters import SamplingParameters
from corral_server.runner.sampling.sampler import make_chain
from tests.runner.engines import GREEDY, Answer, answer, chat, weights

pytestmark = pytest.mark.process

HOT = SamplingParameters(temperature=3.0, top_k=0, top_p=1.0, seed=1)
"""Nearly random tokens: only the grammar makes the text valid."""
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "likes": {"type": "array", "items": {"enum": ["tea", "coffee", 'say "hi"\n\\']}, "minItems": 1, "maxItems": 2},
        "home": {"$ref": "#/$defs/place"},
        "nickname": {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "null"}]},
        "code": {"type": "string", "pattern": "^[A-Z]{3}-[0-9]{2}$"},
    },
    "required": ["name", "age", "likes", "home", "code"],
    "$defs": {"place": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 9}}}},
}


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaEngine]:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=1024, slots=1, threads=1))
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def grammars(engine: LlamaEngine) -> GrammarCompiler:
    return GrammarCompiler(engine._model.vocabulary)


def generate(engine: LlamaEngine, schema: object, *, sampling: SamplingParameters = GREEDY) -> Answer:
    prompt = chat(engine, "Describe a person called Ann, who is 31 and likes tea, as short JSON.")
    return answer(engine, GenerationTask(prompt, sampling, grammar=json_grammar(schema), max_tokens=400))


@pytest.mark.parametrize("sampling", [GREEDY, HOT])
def test_the_answer_follows_the_schema(engine: LlamaEngine, sampling: SamplingParameters) -> None:
    got = generate(engine, PERSON, sampling=sampling)
    assert got.result.reason == "stop"
    person = json.loads(got.text)
    assert set(person) - {"nickname"} == {"name", "age", "likes", "home", "code"}
    assert len(person["name"]) <= 20
    assert 0 <= person["age"] <= 130
    assert set(person["likes"]) <= {"tea", "coffee", 'say "hi"\n\\'}
    assert 1 <= len(person["likes"]) <= 2
    assert person.get("nickname") is None or len(person["nickname"]) <= 5
    assert person["code"][:3].isupper()
    assert person["code"][4:].isdecimal()


@pytest.mark.parametrize(
    ("schema", "valid"),
    [
        ({"type": "integer", "minimum": 25, "maximum": 275}, lambda value: 25 <= value <= 275),
        ({"type": "string", "format": "date"}, lambda value: len(value) == 10),
        ({"enum": [f"value-{n}" for n in range(3000)]}, lambda value: value.startswith("value-")),
    ],
)
def test_a_nearly_random_sampler_follows_the_schema(
    engine: LlamaEngine, schema: object, valid: Callable[[Any], bool]
) -> None:
    assert valid(json.loads(generate(engine, schema, sampling=HOT).text))


def test_every_tokenization_of_an_admitted_text_is_admitted(engine: LlamaEngine, grammars: GrammarCompiler) -> None:
    text = '{"name": "Ann", "age": 31, "likes": ["tea"], "home": {}, "code": "ABC-12"}'
    for tokens in (
        engine.tokenize(text, add_special=False, parse_special=False),
        [engine.tokenize(letter, add_special=False, parse_special=False)[-1] for letter in text],
    ):
        matcher = grammars.compile(json_grammar(PERSON))
        for token in tokens:
            assert matcher.allows(token)
            assert token in matcher.allowed_tokens()
            matcher.consume(token)
        assert set(matcher.allowed_tokens()) == set(engine._model.vocabulary().ends)


def test_control_tokens_are_admitted_only_where_the_grammar_names_them(
    engine: LlamaEngine, grammars: GrammarCompiler
) -> None:
    mark = engine.tokenize("<|im_start|>", add_special=False, parse_special=True)[0]
    matcher = grammars.compile(Grammar('start: marker_0 "x" /.*/', ("<|im_start|>",)))
    assert list(matcher.allowed_tokens()) == [mark]
    matcher.consume(mark)
    matcher.consume(engine.tokenize("x", add_special=False, parse_special=False)[-1])
    assert not matcher.allows(mark)
    assert mark not in matcher.allowed_tokens()


class Masking:
    """The plain way: a mask over the whole vocabulary before every choice."""

    def __init__(self, chain: LlamaSampler, matcher: GrammarMatcher, vocab_size: int) -> None:
        self._chain, self._matcher = chain, matcher
        self._candidates = CandidateArray(vocab_size)

    def sample(self, context: LlamaContext, index: int) -> int:
        logits = np.frombuffer(context.logits(index), dtype=np.float32)
        self._candidates.fill(logits, self._matcher.allowed_tokens())
        token = self._chain.apply(self._candidates)
        self._chain.accept(token)
        self._matcher.consume(token)
        return token


@pytest.mark.parametrize("rules", ["start: /[a-z ]*/", "start: /[0-9]*/"])
@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParameters(seed=2, top_k=1),
        SamplingParameters(seed=3, temperature=0, repeat_penalty=1.3),
        SamplingParameters(seed=4, temperature=0, repeat_penalty=0.2, presence_penalty=-50.0),
    ],
)
def test_the_checked_choice_is_the_best_admitted_token(
    model: LlamaModel, context: LlamaContext, sampling: SamplingParameters, rules: str
) -> None:
    """Greedy choices do not depend on how many were drawn before."""
    grammars = GrammarCompiler(model.vocabulary)
    needed = model.vocab_size if sampling.repeat_penalty < 1 else 128
    generated = []
    for masking in (True, False):
        matcher = grammars.compile(Grammar(rules))
        chain = make_chain(sampling, vocab_size=model.vocab_size, context_length=512)
        sampler = (
            Masking(chain, matcher, model.vocab_size)
            if masking
            else ConstrainedSampler(chain, matcher, model.vocab_size, needed=needed)
        )
        generated.append(follow(model, context, sampler, tokens=12))
    assert generated[0] == generated[1]


def follow(
    model: LlamaModel, context: LlamaContext, sampler: Masking | ConstrainedSampler, *, tokens: int
) -> list[int]:
    context.clear()
    new = model.tokenize("Once upon a time", add_special=True, parse_special=False)
    position, chosen = 0, list[int]()
    for _ in range(tokens):
        context.clear_batch()
        last = context.add_tokens(0, position, new, outputs=1)
        assert context.decode() == 0
        position += len(new)
        new = [sampler.sample(context, last)]
        chosen += new
    return chosen


def test_an_unlikely_token_is_found_when_it_is_the_only_one_admitted(engine: LlamaEngine) -> None:
    got = answer(engine, GenerationTask(chat(engine, "Hi"), GREEDY, grammar=Grammar('start: "一"')))
    assert got.text == "一"


def test_a_text_that_the_vocabulary_cannot_spell_is_refused(engine: LlamaEngine) -> None:
    with pytest.raises(InvalidGrammar):
        answer(engine, GenerationTask(chat(engine, "Hi"), GREEDY, grammar=Grammar('start: "\\u0004"')))


def test_the_matcher_is_freed_with_its_generation(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[weakref.ref[GrammarMatcher]] = []
    compile = GrammarCompiler.compile

    def watched(compiler: GrammarCompiler, grammar: Grammar) -> GrammarMatcher:
        matcher = compile(compiler, grammar)
        made.append(weakref.ref(matcher))
        return matcher

    monkeypatch.setattr(GrammarCompiler, "compile", watched)
    generate(engine, {"type": "boolean"})
    gc.collect()
    assert [matcher() for matcher in made] == [None]
