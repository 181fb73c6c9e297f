"""Preparation of a client's JSON Schema for llguidance.

Invariants:
- Depth, size and what references and combinations expand to are bounded before anything is compiled, and nothing
  outside the document is fetched. Each bound takes time in proportion to the bound, not to the schema.
- A value that the prepared schema allows is allowed by the client's schema as llama.cpp reads it.
- An unsupported keyword is left in place: llguidance rejects it by name.

llguidance enforces JSON Schema draft 2020-12 (https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md).
Ollama's clients expect the reading of llama.cpp (``common/json-schema-to-grammar.cpp``), which is narrower, and small
models need it: an object with ``properties`` has no others, a schema with ``properties`` describes an object, a tuple
has all of its items. The prepared schema states these rules. An unknown ``format`` is an annotation, as in the
specification. Integers have at most 16 digits (RFC 7493 section 2.2), because small models repeat digits without end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from urllib.parse import unquote

from corral_server.runner.llama.errors import InvalidGrammar

_MAX_DEPTH = 64
_MAX_CHARACTERS = 400_000
"""Characters of all schemas of a grammar."""
_MAX_SCHEMAS = 2000
"""Subschemas of all schemas of a grammar. Measured with this many properties or alternatives: 0.5 s to compile, 20 ms
of CPU time for a step at most."""
_MAX_COMBINED = 20_000
"""Subschemas that apply to the same value as another one, counted for each of those: ``allOf`` of references repeats
what they refer to."""
_MAX_PATTERN_PROPERTIES = 100
"""llguidance compares all pairs of them. Measured with 200: 0.8 s."""
_MAX_MULTIPLE = 10_000
"""Maximum least common multiple of all ``multipleOf``, which is the number of lexer states. Measured: 70 ms."""
_MAX_INTEGER = 2**53 - 1

_KINDS: Mapping[str, frozenset[str]] = {
    "object": frozenset(
        ("properties", "patternProperties", "additionalProperties", "required", "minProperties", "maxProperties")
    ),
    "array": frozenset(("items", "prefixItems", "minItems", "maxItems")),
    "string": frozenset(("format", "pattern", "minLength", "maxLength")),
}
"""Keywords that imply the type of a schema without ``type``."""
_FORMATS = frozenset(("date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"))
"""The formats that llguidance enforces."""
_SINGLE = ("items", "additionalItems", "additionalProperties")
_LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
_MAPS = ("properties", "patternProperties", "$defs", "definitions")
_LOWER, _UPPER = ("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")

_SIMPLE_KEYWORDS = frozenset(
    (
        *("$schema", "$id", "$comment", "title", "description", "default", "examples", "$defs", "definitions", "$ref"),
        *("type", "enum", "const", "anyOf", "oneOf", "format", *_LOWER, *_UPPER, "minLength", "maxLength"),
        *("properties", "required", "items", "prefixItems", "additionalProperties", "minItems", "maxItems"),
    )
)
"""Keywords whose time to compile is in proportion to their number, unless several describe one text or object."""
_LENGTHS = frozenset(("minLength", "maxLength"))
_SIMPLE_SCHEMAS = 200
_SIMPLE_CHARACTERS = 20_000

Schema = Mapping[str, object]


class SchemaBudget:
    """What the schemas of one grammar take together. Every method raises InvalidGrammar when a bound is exceeded."""

    def __init__(self) -> None:
        self._characters = self._schemas = self._combined = self._patterns = 0
        self._multiples: list[object] = []
        self._has_costly_keyword = False

    @property
    def is_simple(self) -> bool:
        """Whether the schemas certainly compile within some milliseconds."""
        return (
            not self._has_costly_keyword and self._schemas <= _SIMPLE_SCHEMAS and self._characters <= _SIMPLE_CHARACTERS
        )

    def charge_text(self, schema: object) -> None:
        """Count the characters of a document, at least two for each value."""
        rest: list[object] = [schema]
        while rest:
            value = rest.pop()
            if isinstance(value, Mapping):
                rest.extend(value.values())
                self._characters += sum(map(len, value))
            elif isinstance(value, list):
                rest.extend(value)
            self._characters += len(value) if isinstance(value, str) else 2
            if self._characters + 2 * len(rest) > _MAX_CHARACTERS:
                raise InvalidGrammar(f"the JSON schema is too large: at most {_MAX_CHARACTERS} characters are allowed")

    def charge_schema(self, schema: Schema) -> None:
        """Count a subschema and its keywords."""
        self._schemas += 1
        if self._schemas > _MAX_SCHEMAS:
            raise InvalidGrammar(f"the JSON schema is too large: at most {_MAX_SCHEMAS} subschemas are allowed")
        patterns = schema.get("patternProperties")
        self._patterns += len(patterns) if isinstance(patterns, Mapping) else 0
        if self._patterns > _MAX_PATTERN_PROPERTIES:
            raise InvalidGrammar(f"the JSON schema has more than {_MAX_PATTERN_PROPERTIES} patternProperties")
        if "multipleOf" in schema:
            self._multiples.append(schema["multipleOf"])
        if schema.keys() - _SIMPLE_KEYWORDS or ("format" in schema and schema.keys() & _LENGTHS):
            self._has_costly_keyword = True
        if _is_combination(schema):
            self._has_costly_keyword = True

    def check_multiples(self) -> None:
        """Check all ``multipleOf`` together."""
        if not _has_few_remainders(self._multiples):
            raise InvalidGrammar(f"multipleOf in the JSON schema has more than {_MAX_MULTIPLE} remainders")

    def charge_combined(self) -> None:
        """Count a subschema that applies to the same value as another one."""
        self._combined += 1
        if self._combined > _MAX_COMBINED:
            raise InvalidGrammar(f"the references of the JSON schema expand to more than {_MAX_COMBINED} subschemas")


def prepare_schema(schema: object, budget: SchemaBudget | None = None) -> dict[str, object]:
    """Return a copy with llama.cpp's rules stated. Raises InvalidGrammar if it is not a schema or too large.

    Schemas of the same grammar share the ``budget``.
    """
    if schema is True:
        return {}
    if not isinstance(schema, Mapping):
        raise InvalidGrammar(f"a JSON schema is an object or true, not {repr(schema)[:80]}")
    budget = budget or SchemaBudget()
    budget.charge_text(schema)
    document = _Document(schema, budget)
    document.check(schema)
    return document.prepared(schema)


class _Document:
    """One schema document. ``_open`` holds the identities of subschemas whose objects another schema closes."""

    def __init__(self, root: Schema, budget: SchemaBudget) -> None:
        self._root = root
        self._budget = budget
        self._open: set[int] = set()

    def check(self, schema: Schema) -> None:
        """Check depth and size; note which subschemas are parts of a combination."""
        self._visit(schema, depth=1)
        self._budget.check_multiples()

    def _visit(self, schema: Schema, *, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise InvalidGrammar(f"the JSON schema is nested more than {_MAX_DEPTH} levels deep")
        self._budget.charge_schema(schema)
        if _is_combination(schema):
            for part in self._parts(schema):
                self._leave_open(part)
        for child in _children(schema):
            self._visit(child, depth=depth + 1)

    def prepared(self, schema: Schema) -> dict[str, object]:
        copy = {key: self._prepared_value(key, value) for key, value in schema.items()}
        if not copy.keys() & {"type", "enum", "const"}:
            kind = next((kind for kind, keywords in _KINDS.items() if keywords & copy.keys()), None)
            copy |= {"type": kind} if kind else {}
        if "format" in copy and copy["format"] not in _FORMATS:
            del copy["format"]
        if isinstance(items := copy.get("prefixItems"), list):
            copy = {"items": False, "minItems": len(items)} | copy
        if id(schema) not in self._open:
            self._close(schema, copy)
            _bound_integer(copy)
        return copy

    def _prepared_value(self, key: str, value: object) -> object:
        if key in _MAPS and isinstance(value, Mapping):
            return {name: self._prepared_child(child) for name, child in value.items()}
        if key in _LISTS and isinstance(value, list):
            return [self._prepared_child(child) for child in value]
        return self._prepared_child(value) if key in _SINGLE else value

    def _prepared_child(self, value: object) -> object:
        return self.prepared(value) if isinstance(value, Mapping) else value

    def _close(self, schema: Schema, copy: dict[str, object]) -> None:
        """Allow only the properties that the schema and the parts of its combination name."""
        schemas = [schema]
        if _is_combination(schema):
            schemas = list(self._combined(schema, set()))
        if any(one.keys() & {"additionalProperties", "patternProperties"} for one in schemas[1:]):
            return
        names = [name for one in schemas for name in _properties(one)]
        if names and "additionalProperties" not in schema:
            copy["properties"] = {**_properties(copy), **{n: True for n in names if n not in _properties(schema)}}
            copy["additionalProperties"] = False

    def _combined(self, schema: Schema, seen: set[int]) -> Iterator[Schema]:
        """Yield the schema and everything that applies to the same value."""
        if id(schema) not in seen:
            self._budget.charge_combined()
            seen.add(id(schema))
            yield schema
            for part in self._parts(schema):
                yield from self._combined(part, seen)

    def _parts(self, schema: Schema) -> list[Schema]:
        """Return the subschemas that apply to the same value as the schema."""
        parts = [part for keyword in ("allOf", "anyOf", "oneOf") for part in _items(schema, keyword)]
        target = self._resolved(schema.get("$ref"))
        return parts if target is None else [*parts, target]

    def _leave_open(self, schema: Schema) -> None:
        if id(schema) not in self._open:
            self._open.add(id(schema))
            for part in self._parts(schema):
                self._leave_open(part)

    def _resolved(self, pointer: object) -> Schema | None:
        """Return what a JSON pointer (RFC 6901) refers to; None for what llguidance will refuse."""
        target: object = self._root
        if not isinstance(pointer, str) or not pointer.startswith("#"):
            return None
        for part in pointer[1:].split("/")[1:]:
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(target, Mapping):
                target = target.get(key)
            elif isinstance(target, list) and key.isdecimal() and len(key) < 6 and int(key) < len(target):
                target = target[int(key)]
            else:
                return None
        return target if isinstance(target, Mapping) else None


def _has_few_remainders(values: Sequence[object]) -> bool:
    """Return whether the least common multiple of decimal numbers, in units of their last digit, is small."""
    numbers = [Decimal(str(value)).normalize().as_tuple() for value in values if _is_positive(value)]
    exponents = [number.exponent for number in numbers if isinstance(number.exponent, int)]
    unit = min([0, *exponents])
    multiple = 1
    for number, exponent in zip(numbers, exponents, strict=True):
        multiple = math.lcm(multiple, int("".join(map(str, number.digits))) * 10 ** (exponent - unit))
        if multiple > _MAX_MULTIPLE:  # at once: the multiple of thousands of large numbers takes minutes
            return False
    return True


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf


def _is_combination(schema: Schema) -> bool:
    """Return whether several schemas describe the properties of one object."""
    groups = len(_items(schema, "allOf")) + sum(keyword in schema for keyword in ("anyOf", "oneOf", "$ref"))
    return groups + bool(schema.keys() & _KINDS["object"]) > 1


def _bound_integer(schema: dict[str, object]) -> None:
    kind = schema.get("type")
    if kind != "integer" and not (isinstance(kind, list) and "integer" in kind and "number" not in kind):
        return
    low, high = _limits(schema, _LOWER), _limits(schema, _UPPER)
    if not low and all(limit > -_MAX_INTEGER for limit in high):
        schema["minimum"] = -_MAX_INTEGER
    if not high and all(limit < _MAX_INTEGER for limit in low):
        schema["maximum"] = _MAX_INTEGER


def _limits(schema: Schema, keywords: Sequence[str]) -> list[float]:
    values = (schema[keyword] for keyword in keywords if keyword in schema)
    return [value if isinstance(value, int | float) else math.nan for value in values]


def _children(schema: Schema) -> Iterator[Schema]:
    for keyword in _MAPS:
        children = schema.get(keyword)
        if isinstance(children, Mapping):
            yield from (child for child in children.values() if isinstance(child, Mapping))
    for keyword in _LISTS:
        yield from _items(schema, keyword)
    for keyword in _SINGLE:
        child = schema.get(keyword)
        if isinstance(child, Mapping):
            yield child


def _items(schema: Schema, keyword: str) -> list[Schema]:
    value = schema.get(keyword)
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _properties(schema: Mapping[str, object]) -> Mapping[str, object]:
    properties = schema.get("properties")
    return properties if isinstance(properties, Mapping) else {}
