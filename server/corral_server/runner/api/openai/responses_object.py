"""The ``response`` object of OpenAI's responses API: parameters of the request, and the output.

Source: OpenAI's API reference, "Responses", and Ollama's ``openai/responses.go``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corral_server.runner.api.request_body import RequestFields
from corral_server.runner.engine.generation import GenerationResult


@dataclass(frozen=True, slots=True)
class EchoedParameters:
    """The members of the request that the response repeats."""

    model: str
    instructions: str | None
    tools: Sequence[object]
    tool_choice: object
    truncation: str
    text: object
    temperature: object
    top_p: object
    reasoning_effort: str | None
    max_output_tokens: int | None
    metadata: Mapping[str, object]

    @classmethod
    def from_fields(cls, fields: RequestFields, options: Mapping[str, object]) -> EchoedParameters:
        reasoning = fields.nested("reasoning", "ResponsesReasoning")
        return cls(
            model=fields.string("model"),
            instructions=fields.string("instructions") or None,
            tools=fields.array("tools"),
            tool_choice=fields.value("tool_choice") or "auto",
            truncation=fields.string("truncation") or "disabled",
            text=fields.mapping("text") or {"format": {"type": "text"}},
            temperature=options["temperature"],
            top_p=options["top_p"],
            reasoning_effort=reasoning.string("effort") or None,
            max_output_tokens=fields.integer("max_output_tokens"),
            metadata=fields.mapping("metadata"),
        )


@dataclass(frozen=True, slots=True)
class CompletedOutput:
    """The output of a finished generation; ``reasoning_tokens`` is its number of reasoning tokens."""

    output: Sequence[Mapping[str, object]]
    result: GenerationResult
    reasoning_tokens: int


def response_object(
    parameters: EchoedParameters, id: str, created: int, *, completed: CompletedOutput | None = None
) -> dict[str, object]:
    """Build the response object, ``in_progress`` without ``completed``. ``created`` is in Unix seconds."""
    cut = completed is not None and completed.result.reason == "length"
    return {
        "id": id,
        "object": "response",
        "created_at": created,
        "completed_at": None if completed is None else int(time.time()),
        "status": "in_progress" if completed is None else "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "model": parameters.model,
        "previous_response_id": None,
        "instructions": parameters.instructions,
        "output": completed.output if completed else (),
        "error": None,
        "tools": parameters.tools,
        "tool_choice": parameters.tool_choice,
        "truncation": parameters.truncation,
        "parallel_tool_calls": True,
        "text": parameters.text,
        "top_p": parameters.top_p,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_logprobs": 0,
        "temperature": parameters.temperature,
        "reasoning": {"effort": parameters.reasoning_effort, "summary": None},
        "usage": None if completed is None else _usage(completed.result, completed.reasoning_tokens),
        "max_output_tokens": parameters.max_output_tokens,
        "max_tool_calls": None,
        "store": False,
        "background": False,
        "service_tier": "default",
        "metadata": parameters.metadata,
        "safety_identifier": None,
        "prompt_cache_key": None,
    }


def _usage(result: GenerationResult, reasoning_tokens: int) -> dict[str, object]:
    output = len(result.tokens)
    return {
        "input_tokens": result.prompt_tokens,
        "input_tokens_details": {"cached_tokens": result.cached_tokens},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": reasoning_tokens},
        "total_tokens": result.prompt_tokens + output,
    }
