"""Schemas that expand or take long to compile: they are refused within the limits, and usual ones are compiled."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextvars import copy_context

import pytest

from corral_core.weights.memory_estimate import MIB
from corral_server.runner.isolation.worker_process import WorkerProcess
from corral_server.runner.llama.errors import InvalidGrammar
from corral_server.runner.memory.budget import RequestMemory, Reservation, set_current_reservation
from corral_server.runner.sampling.grammar import CallFrame, Preamble
from corral_server.runner.sampling.grammar_compiler import GrammarCompiler
from corral_server.runner.sampling.json_schema import SchemaBudget, prepare_schema
from corral_server.runner.sampling.lark import json_grammar, tool_call_grammar
from corral_server.wire.errors import ApiError
from tests.support.vocabulary import byte_vocabulary


class CountingWorker(WorkerProcess):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def call(self, operation: str, arguments: Mapping[str, object], *, seconds: float) -> bytes:
        self.calls += 1
        return super().call(operation, arguments, seconds=seconds)


@pytest.fixture
def worker() -> Iterator[CountingWorker]:
    worker = CountingWorker()
    yield worker
    worker.close()


@pytest.mark.process
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "allOf": [{"pattern": f".*{n}.*"} for n in range(30)]},
        {"enum": [f"v{n}" for n in range(30_000)], "type": "string", "pattern": "v.*9.*[0-8].*9"},
    ],
)
def test_a_schema_that_takes_long_to_compile_is_refused(worker: CountingWorker, schema: object) -> None:
    """The compiler of llguidance cannot be interrupted: the first schema takes hours."""
    with pytest.raises(InvalidGrammar, match=r"takes longer than 0.5 s to compile|memory limit of \d+ MiB"):
        GrammarCompiler(byte_vocabulary, worker).compile(json_grammar(schema))


@pytest.mark.process
def test_patterns_that_are_too_complex_together_are_named_and_not_quoted(worker: CountingWorker) -> None:
    schema = {"allOf": [{"type": "string", "pattern": f"^(a|b){{1,{n + 20}}}c?[a-z]*$"} for n in range(200)]}
    with pytest.raises(InvalidGrammar, match=r"are too complex; use fewer pattern in allOf$"):
        GrammarCompiler(byte_vocabulary, worker).compile(json_grammar(schema))


@pytest.mark.process
def test_a_grammar_is_tried_once(worker: CountingWorker) -> None:
    compiler = GrammarCompiler(byte_vocabulary, worker)
    for _ in range(3):
        compiler.compile(json_grammar({"type": "string", "pattern": "^[a-z]+$"}))
    assert worker.calls == 1


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {"type": "object"},
        {
            "type": "object",
            "title": "Person",
            "properties": {
                "name": {"type": "string", "maxLength": 20, "description": "full name"},
                "age": {"type": "integer", "minimum": 0},
                "likes": {"type": "array", "items": {"enum": ["tea", "coffee"]}, "minItems": 1},
                "home": {"anyOf": [{"$ref": "#/$defs/place"}, {"type": "null"}], "default": None},
                "born": {"type": "string", "format": "date"},
            },
            "required": ["name"],
            "additionalProperties": False,
            "$defs": {"place": {"type": "object", "properties": {"city": {"type": "string"}}}},
        },
    ],
)
def test_a_usual_schema_needs_no_worker(worker: CountingWorker, schema: object) -> None:
    GrammarCompiler(byte_vocabulary, worker).compile(json_grammar(schema))
    assert worker.calls == 0


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "a"},
        {"type": "string", "format": "date", "maxLength": 5},
        {"allOf": [{"type": "string"}]},
        {"$ref": "#/$defs/a", "properties": {"b": True}, "$defs": {"a": {"type": "object"}}},
        {"prefixItems": [{"type": "null"}] * 200},
        {"enum": ["x" * 20_000]},
        {"type": "integer", "multipleOf": 7},
    ],
)
def test_a_costly_schema_is_not_simple(schema: object) -> None:
    assert not json_grammar(schema).is_simple


@pytest.mark.parametrize(
    ("schema", "bound"),
    [
        (
            {
                "properties": {f"p{n}": {"allOf": [{"$ref": "#/$defs/d0"}, {}]} for n in range(400)},
                "$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}]} for n in range(300)} | {"d300": {}},
            },
            "expand to more than 20000 subschemas",
        ),
        ({"enum": ["x"] * 200_000}, "at most 400000 characters"),
        ({"enum": [{"x": "y" * 400_000}]}, "at most 400000 characters"),
        ({"anyOf": [{"type": "null"}] * 2000}, "at most 2000 subschemas"),
        ({"patternProperties": {f"^k{n}$": True for n in range(101)}}, "more than 100 patternProperties"),
        ({"anyOf": [{"multipleOf": 3**4000 + n} for n in range(1900)]}, "more than 10000 remainders"),
        ({"anyOf": [{"multipleOf": n} for n in (0.5, 3, 7, 1e-9)]}, "more than 10000 remainders"),
    ],
)
def test_the_bound_is_named(schema: object, bound: str) -> None:
    with pytest.raises(InvalidGrammar, match=bound):
        prepare_schema(schema)


def test_the_size_is_counted_up_to_the_bound_alone() -> None:
    """The walk ends long before the whole of a large document."""

    class Counted(list[object]):
        read = 0

        def __iter__(self) -> Iterator[object]:
            Counted.read += 1
            return super().__iter__()

    with pytest.raises(InvalidGrammar):
        SchemaBudget().charge_text({"enum": [Counted(["x" * 1000] * 20) for _ in range(1000)]})
    assert Counted.read < 30


def test_the_tools_of_a_forced_call_share_the_bounds() -> None:
    parameters = {"properties": {f"k{n}": {"type": "null"} for n in range(100)}}
    frames = [CallFrame(f"{n}", parameters, "") for n in range(40)]
    with pytest.raises(InvalidGrammar, match="at most 2000 subschemas"):
        tool_call_grammar(frames, preamble=Preamble(), markers=())


def test_a_costly_grammar_reserves_the_memory_of_its_states(worker: CountingWorker) -> None:
    memory = RequestMemory(128 * MIB)
    compiler = GrammarCompiler(byte_vocabulary, worker)

    def compile_for_another_request(schema: object) -> None:
        set_current_reservation(Reservation(memory))
        compiler.compile(json_grammar(schema))

    context = copy_context()
    context.run(compile_for_another_request, {"type": "object"})
    assert memory.used == 0
    for number in range(4):  # the slots of a runner, with the memory of its default limit
        context.run(compile_for_another_request, {"type": "string", "pattern": f"^a{{{number + 1}}}$"})
    assert memory.used == 28 * MIB
    memory.used = 90 * MIB
    with pytest.raises(ApiError, match="all of its memory"):
        context.run(compile_for_another_request, {"type": "string", "pattern": "^a{1}$"})


def test_the_states_of_a_costly_grammar_are_fewer(worker: CountingWorker) -> None:
    compiler = GrammarCompiler(byte_vocabulary, worker)

    def write_long_text(schema: object) -> None:
        matcher = compiler.compile(json_grammar(schema))
        for token in b'"' + b"a" * 12_000:
            matcher.consume(token)

    write_long_text({"type": "string", "maxLength": 40_000})
    with pytest.raises(InvalidGrammar, match="too many states"):
        write_long_text({"type": "string", "pattern": "^a{1,40000}$"})
