"""JSON Schemas as grammars: which JSON values they admit, and which schemas are refused."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from corral_server.runner.llama.errors import InvalidGrammar
from corral_server.runner.sampling.json_schema import prepare_schema
from corral_server.runner.sampling.lark import json_grammar
from tests.support.vocabulary import BYTE_COMPILER, admits


@pytest.mark.parametrize(
    ("text", "admitted"),
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
        ('{   "a": 1}', False),
    ],
)
def test_any_object(text: str, admitted: bool) -> None:
    assert admits(json_grammar({"type": "object"}), text) is admitted


_UNITED = {
    "allOf": [{"$ref": "#/$defs/a"}, {"properties": {"y": {"type": "null"}}, "required": ["y"]}],
    "$defs": {"a": {"type": "object", "properties": {"x": {"const": 1}}, "required": ["x"]}},
}
_POINTERS = {"properties": {"a~/b": {"$ref": "#/properties/c%20d"}, "c d": {"const": 1}}, "required": ["a~/b"]}
_OPTIONAL = {"properties": {"a": {"const": 1}, "b": {"const": 2}, "c": {"const": 3}}, "required": ["b"]}
_EITHER = {"properties": {"a": {"const": 1}, "b": {"const": 2}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]}
_PETS = {
    "oneOf": [{"$ref": "#/$defs/cat"}, {"$ref": "#/$defs/dog"}],
    "$defs": {
        "cat": {"type": "object", "properties": {"kind": {"const": "cat"}}, "required": ["kind"]},
        "dog": {"type": "object", "properties": {"kind": {"const": "dog"}, "age": {"const": 3}}, "required": ["kind"]},
    },
}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (True, ["1", "{}", "[[]]", '"x"'], ["", "x", "1 2"]),
        ({"type": "boolean"}, ["true", "false"], ["1", '"true"', "True"]),
        ({"type": "null"}, ["null"], ["0", "{}"]),
        ({"type": "number"}, ["0", "-1.5", "1e10", "12345"], ["01", "1.", ".5", "+1", '"1"']),
        ({"type": "number", "minimum": 0.5, "exclusiveMaximum": 2}, ["0.5", "1", "1.99"], ["0.4", "2", "-1"]),
        ({"type": ["integer", "null"], "maximum": -5}, ["-5", "-123", "null"], ["-4", "0", "5"]),
        ({"type": "integer", "exclusiveMinimum": 0, "maximum": 12.5}, ["1", "9", "12"], ["0", "13", "-1"]),
        ({"type": "integer"}, ["0", "-9007199254740991"], ["9" * 17, "007", "1.5"]),
        ({"type": "integer", "multipleOf": 7}, ["0", "7", "49"], ["8", "50"]),
        ({"const": {"a": [1, 2.5, "é🙂"]}}, ['{"a": [1, 2.5, "é🙂"]}'], ["{}"]),
        ({"enum": ["a\"b\\", "", 3]}, ['"a\\"b\\\\"', '""', "3"], ['"a"', "4"]),
        ({"enum": ["", "a", "ab", "ab\"", 1, 12, 1.5]}, ['""', '"ab"', '"ab\\""', "1", "12", "1.5"], ['"b"', "15"]),
        ({"enum": ["a" * n for n in range(1, 60)]}, ['"a"', f'"{"a" * 59}"', f'"{"a" * 33}"'], ['""', f'"{"a" * 60}"']),
        ({"format": "date"}, ['"2024-02-29"'], ['"2024-13-01"', '"24-01-01"', "2024-02-29", "5"]),
        ({"type": "string", "format": "date-time"}, ['"2024-02-29T23:59:59Z"'], ['"2024-02-29"']),
        ({"type": "string", "format": "uuid"}, ['"123e4567-e89b-12d3-a456-426614174000"'], ['"123"']),
        ({"type": "string", "format": "email"}, ['"ann@example.com"'], ['"ann"', '"@example.com"']),
        ({"type": "string", "format": "ipv4"}, ['"10.0.0.1"'], ['"10.0.0.256"']),
        ({"type": "string", "format": "password"}, ['"any"'], ["1"]),
        ({"type": "string", "pattern": "^[A-Z]{2}-[0-9]+$"}, ['"AB-12"'], ['"AB-"', '"ab-12"', '"AB-12x"']),
        ({"pattern": "b"}, ['"abc"', '"b"'], ['"ac"', "1"]),
        ({"type": "string", "minLength": 2, "maxLength": 3}, ['"ab"', '"a\\n🙂"'], ['"a"', '"abcd"']),
        ({"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 3}, ["[null, null]"], ["[null]"]),
        ({"type": "array", "maxItems": 0}, ["[]", "[ ]"], ["[1]"]),
        ({"items": {"type": "null"}, "maxItems": 1}, ["[]", "[null]"], ["[null, null]", "[1]"]),
        ({"prefixItems": [{"type": "null"}, {"const": 1}], "items": False}, ["[null, 1]"], ["[null]", "[null, 1, 1]"]),
        ({"prefixItems": [{"type": "null"}], "items": {"const": 1}}, ["[null]", "[null,1,1]"], ["[]", "[null,2]"]),
        ({"prefixItems": [{"type": "null"}]}, ["[null]"], ["[]", "[null, 1]"]),
        ({"prefixItems": [{"type": "null"}] * 2, "minItems": 1}, ["[null]", "[null, null]"], ["[]"]),
        (_UNITED, ['{"x": 1, "y": null}'], ['{"x": 1}', '{"y": null}', "{}", '{"x": 1, "y": null, "z": 1}']),
        (_POINTERS, ['{"a~/b": 1}', '{"a~/b": 1, "c d": 1}'], ['{"c d": 1}']),
        (_OPTIONAL, ['{"b":2}', '{"a":1,"b":2}', '{"b":2,"c":3}'], ['{"a":1}', '{"b":2,"d":4}', '{"b":2,}']),
        (_EITHER, ['{"a":1}', '{"b":2}', '{"a":1,"b":2}'], ["{}", '{"a":1,"c":3}']),
        (_PETS, ['{"kind":"cat"}', '{"kind":"dog","age":3}'], ['{"kind":"cat","age":3}', '{"kind":"cow"}']),
        ({"allOf": [_OPTIONAL]}, ['{"b":2}'], ['{"b":2,"d":4}']),
        ({"type": "object"}, ["{}", '{"a": [1]}'], ["[]"]),
        ({"additionalProperties": {"const": 1}}, ["{}", '{"a": 1, "b": 1}'], ['{"a": 2}']),
        ({**_OPTIONAL, "additionalProperties": True}, ['{"b": 2, "z": {}}'], ['{"z": {}}', '{"z": 1, "b": 2}']),
        ({"required": ["z"]}, ['{"z": 5}'], ["{}", "1"]),
        ({"additionalProperties": {"const": 1}, "minProperties": 1, "maxProperties": 2}, ['{"a": 1}'], ["{}"]),
        ({"patternProperties": {"^n_": {"const": 1}}, "additionalProperties": False}, ['{"n_a": 1}'], ['{"a": 1}']),
    ],
)  # fmt: skip
def test_a_keyword_narrows_the_values(schema: object, good: list[str], bad: list[str]) -> None:
    grammar = json_grammar(schema)
    assert [text for text in good if not admits(grammar, text)] == []
    assert [text for text in bad if admits(grammar, text)] == []


def test_a_recursive_schema() -> None:
    tree = {
        "type": "object",
        "properties": {"leaf": {"type": "boolean"}, "child": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}},
        "required": ["leaf", "child"],
    }
    grammar = json_grammar(tree)
    assert admits(grammar, '{"leaf": false, "child": {"leaf": true, "child": null}}')
    assert not admits(grammar, '{"leaf": false, "child": {"leaf": true}}')


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
        {"type": "array", "minItems": True},
        {"type": "string", "minLength": 5, "maxLength": 4},
        {"type": "integer", "minimum": 5, "maximum": 4},
        {"$ref": "https://example.com/schema.json"},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "#/nowhere"},
        {"$ref": 5},
        {"not": {"type": "null"}},
        {"type": "string", "pattern": "("},
        {"type": "object", "required": ["z"], "additionalProperties": False},
        _nested(65),
        _nested(5000),
        {"enum": ["x" * 500_000]},
        {"enum": [f"value-{n}" for n in range(100_000)]},
        {"anyOf": [{"const": n} for n in range(5000)]},
        {"patternProperties": {f"^k{n}$": True for n in range(200)}},
        {"$ref": "#/$defs/d0", "$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}, {}]} for n in range(1900)}},
        {"type": "integer", "multipleOf": 10**8 + 7},
        {"allOf": [{"type": "integer", "multipleOf": n} for n in (9973, 9967, 9949)]},
        {"allOf": [{"anyOf": [{"properties": {f"{m}{n}": True}} for m in range(4)]} for n in range(10)]},
    ],
)
def test_a_schema_that_is_wrong_or_too_large_is_refused(schema: object) -> None:
    with pytest.raises(InvalidGrammar):
        BYTE_COMPILER.compile(json_grammar(schema))


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"allOf": [{"$ref": "#/allOf/0"}]},
    ],
)
def test_a_schema_that_is_only_itself_admits_nothing(schema: object) -> None:
    with pytest.raises(InvalidGrammar):
        BYTE_COMPILER.compile(json_grammar(schema)).allowed_tokens()


_EXPANDING = {
    "$ref": "#/$defs/d0",
    "$defs": {f"d{n}": {"prefixItems": [{"$ref": f"#/$defs/d{n + 1}"}] * 9} for n in range(12)}
    | {"d12": {"type": "null"}},
}


@pytest.mark.parametrize(
    "schema",
    [
        {"anyOf": [{"properties": {f"k{n}": {"type": "string"}}, "required": [f"k{n}"]} for n in range(600)]},
        {"enum": [f"value-{n}" for n in range(3900)]},
        {"properties": {str(n): {"type": "array"} for n in range(400)}},
        {"type": "string", "maxLength": 10**9},
        {"type": "string", "minLength": 10**9},
        {"type": "array", "minItems": 10**9},
        {"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"},
        {"type": "string", "pattern": "((a{1,1000}){1,1000}){1,1000}"},
        _EXPANDING,
    ],
)
def test_a_large_schema_compiles(schema: Mapping[str, object]) -> None:
    assert len(BYTE_COMPILER.compile(json_grammar(schema)).allowed_tokens())


def test_a_client_cannot_set_options_of_llguidance() -> None:
    schema = {"x-guidance": {"lenient": True, "item_separator": "x"}, "not": {}}
    with pytest.raises(InvalidGrammar, match="not"):
        BYTE_COMPILER.compile(json_grammar(schema))


def test_the_schema_of_the_client_is_not_changed() -> None:
    schema = {"properties": {"a": {"type": "integer"}}}
    prepare_schema(schema)
    assert schema == {"properties": {"a": {"type": "integer"}}}
