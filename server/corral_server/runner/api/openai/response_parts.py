"""Parts of the responses of OpenAI's chat and completions API, with the values of Ollama's ``openai/openai.go``."""

from __future__ import annotations

from corral_server.runner.api.encoding import logprob_objects
from corral_server.runner.chat.delta import Delta
from corral_server.runner.engine.generation import GenerationResult
from corral_server.wire.event_stream import server_sent_event
from corral_server.wire.json_encoding import compact_json

DONE = server_sent_event("[DONE]")
FINGERPRINT = "fp_ollama"


def chunk_event(body: dict[str, object]) -> bytes:
    return server_sent_event(compact_json(body))


def logprobs_member(delta: Delta) -> dict[str, object]:
    """Return the ``logprobs`` member of a choice; empty without logprobs."""
    content = logprob_objects(delta.logprobs, always_top=True)
    return {"logprobs": {"content": content}} if content else {}


def usage_object(result: GenerationResult) -> dict[str, int]:
    prompt, completion = result.prompt_tokens, len(result.tokens)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
