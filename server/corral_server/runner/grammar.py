"""JSON, or the JSON that a JSON Schema describes, as a grammar in llama.cpp's GBNF.

Schemas come from clients: their depth and the size of what they become are bounded, references stay inside the
document, and nothing is fetched. What always holds: everything a grammar from here lets through is valid JSON.
Held: type, enum, const, properties, required, additionalProperties, items, prefixItems, minItems, maxItems, anyOf,
oneOf, allOf, $ref, minLength, maxLength, minimum, maximum of integers, and the formats date, time, date-time and uuid.
Other keywords (``not``, ``if``, ``pattern``, ``multipleOf`` ...) do not narrow what is generated.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from corral_server.runner.generation import InvalidGrammar
from corral_server.runner.integers import between
from corral_server.runner.literals import one_of, quoted

_NO_ALTERNATIVES = "the JSON schema has an empty list of alternatives"
_MAX_DEPTH = 64
_MAX_RULES = 4000
_MAX_BYTES = 400_000
_MAX_REPEAT = 1000
"""llama.cpp refuses more than 2000 repetitions; an upper bound above this one is not held."""

_BASE = {
    "space": r'| " " | "\n" [ \t]{0,20}',
    "value": "object | array | string | number | boolean | null",
    "object": '"{" space (member ("," space member)*)? space "}"',
    "member": 'string ":" space value',
    "array": '"[" space (value ("," space value)*)? space "]"',
    "string": r'"\"" char* "\""',
    "char": r'[^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F]{4})',
    "number": 'integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?',
    "integer": '"-"? ("0" | [1-9] [0-9]{0,15})',
    "boolean": '"true" | "false"',
    "null": '"null"',
}
_DATE = r'[0-9]{4} "-" ("0" [1-9] | "1" [0-2]) "-" ("0" [1-9] | [12] [0-9] | "3" [01])'
_TIME = (
    r'([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{3})? '
    r'("Z" | [+-] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])'
)
_FORMATS = {
    "date": rf'"\"" {_DATE} "\""',
    "time": rf'"\"" {_TIME} "\""',
    "date-time": rf'"\"" {_DATE} "T" {_TIME} "\""',
    "uuid": r'"\"" [0-9a-fA-F]{8} ("-" [0-9a-fA-F]{4}){3} "-" [0-9a-fA-F]{12} "\""',
}


def _text(rules: Mapping[str, str]) -> str:
    return "".join(f"{name} ::= {body}\n" for name, body in rules.items())


LEAD_RULES = {"thought": '([^<[] | "<" [^/|] | "[" [^/])*', "blank": r"[ \t\n]*"}
"""For what a model may say before a value: text that holds no closing tag, and white space."""

JSON_GRAMMAR = _text({"root": "object", **_BASE})
"""Any JSON object: what ``format: "json"`` asks for."""


def schema_grammar(schema: object) -> str:
    """GBNF text for a JSON Schema (an object or a boolean). Raises InvalidGrammar for one that cannot be held."""
    text = _Converter(schema).convert()
    if len(text.encode()) > _MAX_BYTES:
        raise InvalidGrammar("the JSON schema is too large")
    return text


def framed_grammar(parts: Sequence[tuple[str, object, str]], *, lead: str = "") -> str:
    """GBNF for one of several JSON values, each a text before, its schema and a text after it.

    ``lead`` is GBNF for what comes first; it may use the rules of ``LEAD_RULES``. Raises InvalidGrammar.
    """
    text = _Converter(True).framed(parts, lead)
    if len(text.encode()) > _MAX_BYTES:
        raise InvalidGrammar("the JSON schemas are too large")
    return text


def led(grammar: str, lead: str) -> str:
    """A grammar with GBNF (as in ``framed_grammar``) for what may come before it."""
    if not lead:
        return grammar
    return _text({"root": f"{lead} answer", **LEAD_RULES}) + grammar.replace("root ::=", "answer ::=", 1)


class _Converter:
    """Turns one schema document into rules; every method returns the name of a rule or an expression."""

    def __init__(self, document: object) -> None:
        self._document = document
        self._rules: dict[str, str] = dict(_BASE)
        self._references: dict[str, str] = {}
        self._depth = 0

    def convert(self) -> str:
        root = self._expression(self._document)
        return _text({"root": root, **self._rules})

    def framed(self, parts: Sequence[tuple[str, object, str]], lead: str) -> str:
        """References in each schema are looked up in that schema."""
        options = []
        for before, schema, after in parts:
            self._document, self._references = schema, {}
            options.append(f"{quoted(before)} {self._expression(schema)} {quoted(after)}")
        call = self._alternatives(options)
        return _text({"root": f"{lead} {call}".strip(), **self._rules, **LEAD_RULES})

    def _rule(self, body: str, name: str | None = None) -> str:
        name = name or self._new_name()
        self._rules[name] = body
        return name

    def _new_name(self) -> str:
        if len(self._rules) > _MAX_RULES:
            raise InvalidGrammar("the JSON schema is too large")
        name = f"r{len(self._rules)}"
        self._rules[name] = ""
        return name

    def _expression(self, schema: object) -> str:
        """An expression that can stand in a sequence. Guards the depth."""
        self._depth += 1
        try:
            if self._depth > _MAX_DEPTH:
                raise InvalidGrammar(f"the JSON schema is nested more than {_MAX_DEPTH} levels deep")
            if schema is True:
                return "value"
            if not isinstance(schema, Mapping):
                raise InvalidGrammar(f"a JSON schema is an object or true, not {_shown(schema)}")
            return self._of(schema)
        finally:
            self._depth -= 1

    def _of(self, schema: Mapping[str, object]) -> str:
        if "$ref" in schema:
            return self._reference(schema["$ref"])
        if "const" in schema:
            return quoted(_literal(schema["const"]))
        if "enum" in schema:
            return self._one_of(_list(schema, "enum"))
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                base = {key: value for key, value in schema.items() if key != keyword}
                return self._alternatives([self._expression(_merged(base, s)) for s in _list(schema, keyword)])
        if "allOf" in schema:
            return self._all_of(schema)
        return self._typed(schema)

    def _typed(self, schema: Mapping[str, object]) -> str:
        kind = schema.get("type")
        if isinstance(kind, list):
            return self._alternatives([self._expression({**schema, "type": one}) for one in kind])
        if kind == "object" or (kind is None and ("properties" in schema or "additionalProperties" in schema)):
            return self._object(schema)
        if kind == "array" or (kind is None and ("items" in schema or "prefixItems" in schema)):
            return self._array(schema)
        if kind == "string" or (kind is None and "format" in schema):
            return self._string(schema)
        if kind == "integer":
            return self._integer(schema)
        if kind is None:
            return "value"
        if kind in ("number", "boolean", "null"):
            return str(kind)
        raise InvalidGrammar(f"the JSON schema has an unknown type {_shown(kind)}")

    def _one_of(self, values: Sequence[object]) -> str:
        if not values:
            raise InvalidGrammar(_NO_ALTERNATIVES)
        return self._rule(one_of(map(_literal, values)))

    def _alternatives(self, options: Sequence[str]) -> str:
        if not options:
            raise InvalidGrammar(_NO_ALTERNATIVES)
        return self._rule(" | ".join(options))

    def _reference(self, pointer: object) -> str:
        if not isinstance(pointer, str) or not pointer.startswith("#"):
            raise InvalidGrammar(f"the JSON schema refers to {_shown(pointer)}; only references inside it work")
        if pointer not in self._references:
            target = self._resolve(pointer)
            self._references[pointer] = name = self._new_name()
            self._rule(self._expression(target), name)
        return self._references[pointer]

    def _resolve(self, pointer: str) -> object:
        target = self._document
        for part in pointer[1:].split("/")[1:]:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(target, Mapping) and key in target:
                target = target[key]
            elif isinstance(target, list) and key.isdecimal() and len(key) < 6 and int(key) < len(target):
                target = target[int(key)]
            else:
                raise InvalidGrammar(f"the JSON schema refers to {_shown(pointer)}, which it does not have")
        return target

    def _all_of(self, schema: Mapping[str, object]) -> str:
        merged: Mapping[str, object] = {key: value for key, value in schema.items() if key != "allOf"}
        for part in _list(schema, "allOf"):
            seen = 0
            while isinstance(part, Mapping) and "$ref" in part and seen < _MAX_DEPTH:
                pointer = part["$ref"]
                part = self._resolve(pointer) if isinstance(pointer, str) else part
                seen += 1
            merged = _merged(merged, part)
        return self._expression(merged)

    def _object(self, schema: Mapping[str, object]) -> str:
        properties = schema.get("properties", {})
        if not isinstance(properties, Mapping):
            raise InvalidGrammar("properties in the JSON schema is not an object")
        required = {str(name) for name in _list(schema, "required")} if "required" in schema else set()
        members = [(self._member(name, value), name in required) for name, value in properties.items()]
        members += [(self._member(name, True), True) for name in sorted(required - properties.keys())]
        more = schema.get("additionalProperties", not properties)
        extra = None if more is False else self._rule(f'string ":" space {self._expression(more)}')
        return self._rule(f'"{{" space {self._members(members, extra)} space "}}"')

    def _member(self, name: str, schema: object) -> str:
        return self._rule(f'{quoted(_literal(name))} ":" space {self._expression(schema)}')

    def _members(self, members: Sequence[tuple[str, bool]], extra: str | None) -> str:
        """The members in their order, optional ones left out or not; two rules for each say whether a comma is due."""
        first = f'({extra} ("," space {extra})*)?' if extra else '""'
        later = f'("," space {extra})*' if extra else '""'
        for member, is_required in reversed(members):
            with_comma, without = f'"," space {member} {later}', f"{member} {later}"
            later_skipping, first_skipping = later, first
            later = self._rule(with_comma if is_required else f"{with_comma} | {later_skipping}")
            first = self._rule(without if is_required else f"{without} | {first_skipping}")
        return first

    def _array(self, schema: Mapping[str, object]) -> str:
        low, high = _bounds(schema, "minItems", "maxItems")
        if "prefixItems" in schema:
            return self._tuple(schema)
        item = self._rule(self._expression(schema.get("items", True)))
        if high == 0:
            return self._rule('"[" space "]"')
        rest = f'("," space {item}){{{max(low - 1, 0)},{"" if high is None else high - 1}}}'
        filled = f"{item} {rest}"
        return self._rule(f'"[" space {filled if low else f"({filled})?"} space "]"')

    def _tuple(self, schema: Mapping[str, object]) -> str:
        """All of the items that have a place of their own, then any number of others where the schema names them."""
        items = [self._expression(item) for item in _list(schema, "prefixItems")]
        others = schema.get("items", False)
        more = "" if others is False else f' ("," space {self._rule(self._expression(others))})*'
        return self._rule('"[" space ' + ' "," space '.join(items) + more + ' space "]"')

    def _string(self, schema: Mapping[str, object]) -> str:
        low, high = _bounds(schema, "minLength", "maxLength")
        form = schema.get("format")
        if isinstance(form, str) and form in _FORMATS:
            return self._rule(_FORMATS[form])
        if low == 0 and high is None:
            return "string"
        return self._rule(rf'"\"" char{{{low},{"" if high is None else high}}} "\""')

    def _integer(self, schema: Mapping[str, object]) -> str:
        low, high = _limit(schema, "minimum", "exclusiveMinimum", 1), _limit(schema, "maximum", "exclusiveMaximum", -1)
        if low is None and high is None:
            return "integer"
        if low is not None and high is not None and low > high:
            raise InvalidGrammar("an integer of the JSON schema has a minimum above its maximum")
        return self._rule(between(low, high))


def _merged(base: Mapping[str, object], part: object) -> Mapping[str, object]:
    """Both schemas at once: properties and required are united, of other keywords the later one counts."""
    if part is True or not base:
        return base if part is True else _mapping(part)
    other = _mapping(part)
    if "$ref" in other:
        return other
    merged: dict[str, object] = {**base, **other}
    if isinstance(base.get("properties"), Mapping) and isinstance(other.get("properties"), Mapping):
        merged["properties"] = {**_mapping(base["properties"]), **_mapping(other["properties"])}
    if isinstance(base.get("required"), list) and isinstance(other.get("required"), list):
        merged["required"] = [*_list(base, "required"), *_list(other, "required")]
    return merged


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise InvalidGrammar(f"a JSON schema is an object or true, not {_shown(value)}")
    return value


def _list(schema: Mapping[str, object], keyword: str) -> list[object]:
    value = schema[keyword]
    if not isinstance(value, list):
        raise InvalidGrammar(f"{keyword} in the JSON schema is not a list")
    return value


def _bounds(schema: Mapping[str, object], low: str, high: str) -> tuple[int, int | None]:
    least, most = schema.get(low, 0), schema.get(high)
    if not isinstance(least, int) or isinstance(least, bool) or not 0 <= least <= _MAX_REPEAT:
        raise InvalidGrammar(f"{low} in the JSON schema is not a number from 0 to {_MAX_REPEAT}")
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < least):
        raise InvalidGrammar(f"{high} in the JSON schema is not a number of at least {low}")
    return least, None if most is None or most > _MAX_REPEAT else most


def _limit(schema: Mapping[str, object], inclusive: str, exclusive: str, step: int) -> int | None:
    """The integer limit that ``inclusive`` or ``exclusive`` sets; ``step`` 1 for a lower one, -1 for an upper one."""
    limits = []
    for keyword, beyond in ((inclusive, 0), (exclusive, step)):
        value = schema.get(keyword)
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 10**15:
            whole = math.ceil(value) if step > 0 else math.floor(value)
            limits.append(whole + (beyond if whole == value else 0))
    if not limits:
        return None
    return max(limits) if step > 0 else min(limits)


def _literal(value: object) -> str:
    """A JSON value as text."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value)
    except (ValueError, RecursionError, TypeError):
        raise InvalidGrammar(f"the JSON schema has a value that is no JSON: {_shown(value)}") from None
    return text


def _shown(value: object) -> str:
    return repr(value)[:80]
