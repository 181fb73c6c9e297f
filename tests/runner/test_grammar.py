"""JSON schemas as grammars: what the real model is made to say parses, and hostile schemas are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from corral_server.runner.candidates import CandidateArray
from corral_server.runner.engine import EngineOptions, LlamaEngine
from corral_server.runner.generation import InvalidGrammar, Sampling, Task
from corral_server.runner.grammar import JSON_GRAMMAR, schema_grammar
from tests.runner.engines import GREEDY, Answer, answer, chat, weights

HOT = Sampling(temperature=3.0, top_k=0, top_p=1.0, seed=1)
"""Sampling so wild that only the grammar can keep the text together."""


@pytest.fixture(scope="module")
def engine() -> Iterator[LlamaEngine]:
    engine = LlamaEngine.load(weights(), EngineOptions(context_length=1024, slots=1, threads=1))
    yield engine
    engine.close()


def say(engine: LlamaEngine, grammar: str, *, sampling: Sampling = GREEDY, max_tokens: int = 400) -> Answer:
    prompt = chat(engine, "Describe a person called Ann, who is 31 and likes tea, as short JSON.")
    return answer(engine, Task(prompt, sampling, grammar=grammar, max_tokens=max_tokens))


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "likes": {"type": "array", "items": {"enum": ["tea", "coffee", 'say "hi"\n\\']}, "minItems": 1, "maxItems": 2},
        "home": {"$ref": "#/$defs/place"},
        "nickname": {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "null"}]},
    },
    "required": ["name", "age", "likes", "home"],
    "$defs": {"place": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 9}}}},
}


@pytest.mark.process
@pytest.mark.parametrize("sampling", [GREEDY, HOT])
def test_what_a_schema_describes_is_what_is_said(engine: LlamaEngine, sampling: Sampling) -> None:
    said = say(engine, schema_grammar(PERSON), sampling=sampling)
    assert said.finish.reason == "stop"
    person = json.loads(said.text)
    assert set(person) - {"nickname"} == {"name", "age", "likes", "home"}
    assert len(person["name"]) <= 20
    assert 0 <= person["age"] <= 130
    assert set(person["likes"]) <= {"tea", "coffee", 'say "hi"\n\\'}
    assert 1 <= len(person["likes"]) <= 2
    assert person.get("nickname") is None or len(person["nickname"]) <= 5


def accepts(engine: LlamaEngine, grammar: str, text: str) -> bool:
    """Whether the model could say exactly ``text`` and end there."""
    sampler = engine._model.grammar(grammar)
    end = engine._model.eos
    try:
        one = CandidateArray(1)
        for token in [*engine.tokenize(text, add_special=False, parse_special=False), end]:
            one.set(token)
            sampler.apply(one)
            if not one.drop_impossible():
                return False
            if token != end:
                sampler.accept(token)
        return True
    finally:
        sampler.close()


@pytest.mark.process
@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("{}", True),
        ('{"a": [1, -2.5e3, true, null, {"b": "x\\n\\u00e9🙂"}]}', True),
        ('{\n  "a": 1\n}', True),
        ("[]", False),
        ("1", False),
        ('{"a": 01}', False),
        ('{"a": 1,}', False),
        ("{'a': 1}", False),
        ('{"a": "\n"}', False),
        ('{"a": nan}', False),
    ],
)
def test_the_json_grammar_is_any_object(engine: LlamaEngine, text: str, allowed: bool) -> None:
    assert accepts(engine, JSON_GRAMMAR, text) is allowed


_UNITED = {
    "allOf": [{"$ref": "#/$defs/a"}, {"properties": {"y": {"type": "null"}}, "required": ["y"]}],
    "$defs": {"a": {"type": "object", "properties": {"x": {"const": 1}}, "required": ["x"]}},
}
_POINTERS = {"properties": {"a~/b": {"$ref": "#/properties/c%20d"}, "c d": {"const": 1}}, "required": ["a~/b"]}
_OPTIONAL = {"properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}, "required": ["b"]}


@pytest.mark.process
@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (True, ["1", "{}", "[[]]", '"x"'], ["", "x", "1 2"]),
        ({"type": "boolean"}, ["true", "false"], ["1", '"true"', "True"]),
        ({"type": "null"}, ["null"], ["0", "{}"]),
        ({"type": "number"}, ["0", "-1.5", "1e10", "12345"], ["01", "1.", ".5", "+1", '"1"']),
        ({"type": ["integer", "null"], "maximum": -5}, ["-5", "-123", "null"], ["-4", "0", "5"]),
        ({"type": "integer", "exclusiveMinimum": 0, "maximum": 12.5}, ["1", "9", "12"], ["0", "13", "-1"]),
        ({"const": {"a": [1, 2.5, "é🙂"]}}, ['{"a": [1, 2.5, "é🙂"]}'], ["{}"]),
        ({"enum": ["a\"b\\", "\ud800", 3]}, ['"a\\"b\\\\"', '"\\ud800"', "3"], ['"a"', "4"]),
        ({"enum": ["", "a", "ab", "ab\"", 1, 12, 1.5]}, ['""', '"ab"', '"ab\\""', "1", "12", "1.5"], ['"b"', "15"]),
        ({"enum": ["a" * n for n in range(1, 60)]}, ['"a"', f'"{"a" * 59}"', f'"{"a" * 33}"'], ['""', f'"{"a" * 60}"']),
        ({"format": "date"}, ['"2024-02-29"'], ['"2024-13-01"', '"24-01-01"', "2024-02-29"]),
        ({"type": "string", "format": "date-time"}, ['"2024-02-29T23:59:59Z"'], ['"2024-02-29"']),
        ({"type": "string", "format": "uuid"}, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123"']),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"a\\n🙂"'], ['"a"', '"abcd"']),
        ({"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 3}, ["[null, null]"], ["[null]"]),
        ({"type": "array", "maxItems": 0}, ["[]", "[ ]"], ["[1]"]),
        ({"items": {"type": "null"}, "maxItems": 1}, ["[]", "[null]"], ["[null, null]", "[1]"]),
        ({"prefixItems": [{"type": "null"}, {"const": 1}], "items": False}, ["[null, 1]"], ["[null]", "[null, 1, 1]"]),
        ({"prefixItems": [{"type": "null"}], "items": {"const": 1}}, ["[null]", "[null,1,1]"], ["[]", "[null,2]"]),
        (_UNITED, ['{"x": 1, "y": null}'], ['{"x": 1}', '{"y": null}', "{}"]),
        (_POINTERS, ['{"a~/b": 1}', '{"a~/b": 1, "c d": 1}'], ['{"c d": 1}']),
        (_OPTIONAL, ['{"b":2}', '{"a":1,"b":2}', '{"b":2,"c":3}'], ['{"a":1}', '{"b":2,"d":4}', '{"b":2,}']),
        ({"type": "object"}, ["{}", '{"a": [1]}'], ["[]"]),
        ({"additionalProperties": {"const": 1}}, ["{}", '{"a": 1, "b": 1}'], ['{"a": 2}']),
        ({**_OPTIONAL, "additionalProperties": True}, ['{"b": 2, "z": {}}'], ['{"z": {}}', '{"z": 1, "b": 2}']),
        ({"type": "object", "required": ["z"], "additionalProperties": False}, ['{"z": 5}'], ["{}", '{"y": 5}']),
    ],
)  # fmt: skip
def test_each_keyword_is_held(engine: LlamaEngine, schema: object, good: list[str], bad: list[str]) -> None:
    grammar = schema_grammar(schema)
    assert [text for text in good if not accepts(engine, grammar, text)] == []
    assert [text for text in bad if accepts(engine, grammar, text)] == []


@pytest.mark.process
@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"allOf": [{"$ref": "#/allOf/0"}]},
    ],
)
def test_a_schema_that_is_only_itself_is_refused(engine: LlamaEngine, schema: object) -> None:
    with pytest.raises(InvalidGrammar):
        say(engine, schema_grammar(schema))


@pytest.mark.process
def test_a_schema_that_contains_itself_works(engine: LlamaEngine) -> None:
    tree = {
        "type": "object",
        "properties": {"leaf": {"type": "boolean"}, "child": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["leaf", "child"],
        "additionalProperties": False,
    }
    grammar = schema_grammar(tree)
    assert accepts(engine, grammar, '{"leaf": false, "child": {"leaf": true, "child": null}}')
    assert not accepts(engine, grammar, '{"leaf": false, "child": {"leaf": true}}')


def _nested(depth: int) -> object:
    schema: object = {"type": "null"}
    for _ in range(depth):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        None,
        False,
        7,
        "json",
        [],
        {"type": "text"},
        {"type": 7},
        {"type": []},
        {"enum": []},
        {"enum": "abc"},
        {"anyOf": []},
        {"anyOf": {}},
        {"const": float("nan")},
        {"allOf": [7]},
        {"properties": []},
        {"properties": {"a": 1}},
        {"type": "object", "required": "a"},
        {"items": 3},
        {"type": "array", "minItems": -1},
        {"type": "array", "minItems": 10**9},
        {"type": "array", "minItems": True},
        {"type": "string", "minLength": 5, "maxLength": 4},
        {"type": "integer", "minimum": 5, "maximum": 4},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#/nowhere"},
        {"$ref": 5},
        _nested(65),
        _nested(5000),
        {"enum": ["x" * 500_000]},
        {"properties": {str(n): {"type": "array"} for n in range(3000)}},
    ],
)
def test_a_schema_that_cannot_be_held_is_refused(schema: object) -> None:
    with pytest.raises(InvalidGrammar):
        schema_grammar(schema)


@pytest.mark.parametrize("schema", [True, {}, {"description": "anything"}, {"type": "string", "maxLength": 10**9}])
def test_a_loose_schema_is_any_json(schema: object) -> None:
    assert schema_grammar(schema).startswith("root ::= ")
