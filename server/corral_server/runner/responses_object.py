"""The object that the responses API answers with: what was asked for, said again, and what came out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from corral_server.runner.generation import Finish
from corral_server.runner.requests import Fields


@dataclass(frozen=True, slots=True)
class Echo:
    """The members of the request that its answer repeats."""

    model: str
    instructions: str | None
    tools: Sequence[object]
    tool_choice: object
    truncation: str
    text: object
    temperature: object
    top_p: object
    effort: str | None
    most: int | None
    metadata: Mapping[str, object]

    @classmethod
    def of(cls, fields: Fields, options: Mapping[str, object]) -> Echo:
        reasoning = fields.sub("reasoning", "ResponsesReasoning")
        return cls(
            model=fields.text("model"),
            instructions=fields.text("instructions") or None,
            tools=fields.items("tools"),
            tool_choice=fields.raw("tool_choice") or "auto",
            truncation=fields.text("truncation") or "disabled",
            text=fields.mapping("text") or {"format": {"type": "text"}},
            temperature=options["temperature"],
            top_p=options["top_p"],
            effort=reasoning.text("effort") or None,
            most=fields.integer("max_output_tokens"),
            metadata=fields.mapping("metadata"),
        )


@dataclass(frozen=True, slots=True)
class Ended:
    """What came out; ``thought`` of the tokens were thinking."""

    output: Sequence[Mapping[str, object]]
    finish: Finish
    thought: int


def response_object(echo: Echo, id: str, created: int, *, ended: Ended | None = None) -> dict[str, object]:
    """Without ``ended`` it is one in progress."""
    cut = ended is not None and ended.finish.reason == "length"
    return {
        "id": id,
        "object": "response",
        "created_at": created,
        "completed_at": None if ended is None else int(time.time()),
        "status": "in_progress" if ended is None else "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "model": echo.model,
        "previous_response_id": None,
        "instructions": echo.instructions,
        "output": ended.output if ended else (),
        "error": None,
        "tools": echo.tools,
        "tool_choice": echo.tool_choice,
        "truncation": echo.truncation,
        "parallel_tool_calls": True,
        "text": echo.text,
        "top_p": echo.top_p,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "top_logprobs": 0,
        "temperature": echo.temperature,
        "reasoning": {"effort": echo.effort, "summary": None},
        "usage": None if ended is None else _usage(ended.finish, ended.thought),
        "max_output_tokens": echo.most,
        "max_tool_calls": None,
        "store": False,
        "background": False,
        "service_tier": "default",
        "metadata": echo.metadata,
        "safety_identifier": None,
        "prompt_cache_key": None,
    }


def _usage(finish: Finish, thought: int) -> dict[str, object]:
    answer = len(finish.generated)
    return {
        "input_tokens": finish.prompt_tokens,
        "input_tokens_details": {"cached_tokens": finish.cached_tokens},
        "output_tokens": answer,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": finish.prompt_tokens + answer,
    }
