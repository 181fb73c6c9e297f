"""Prompts from Go templates as Ollama makes them.

A template that goes through ``.Messages`` is run once. An older one, with ``.Prompt`` and ``.Response``, is run once
for each turn, the last time only up to its ``.Response``, where the model goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corral_server.runner.gotemplate.execute import execute
from corral_server.runner.gotemplate.nodes import Action, Field, Node, Pipeline, fields, until_response
from corral_server.runner.gotemplate.parse import parse
from corral_server.runner.gotemplate.tools import message_struct, tool_struct
from corral_server.runner.gotemplate.values import Listed

_RESPONSE = Action(Pipeline((Field(("Response",)),)))


class GoTemplate:
    """One parsed template; rendering is safe from any thread."""

    def __init__(self, source: str) -> None:
        """Raises Unsupported, whose text names the construct."""
        nodes = parse(source)
        names = set(fields(nodes))
        if not names & {"Messages", "Response"}:
            nodes = (*nodes, _RESPONSE)
        self._nodes: tuple[Node, ...] = nodes
        self._by_messages = "Messages" in names
        self.takes_suffix = "Suffix" in names

    def render(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        tools: Sequence[Mapping[str, object]],
        variables: Mapping[str, object],
    ) -> str:
        """Raises Unsupported and TemplateLimit."""
        system, joined = _collated(messages)
        if not self._by_messages:
            return self._by_turns(joined)
        values: dict[str, object] = {
            "System": system,
            "Messages": [message_struct(message) for message in joined],
            "Tools": Listed(tuple(map(tool_struct, tools))) if tools else None,
            "Response": "",
        }
        return execute(self._nodes, values | _thinking(variables))

    def insert(self, prompt: str, suffix: str, variables: Mapping[str, object]) -> str:
        """The prompt for what goes between the two."""
        values = {"Prompt": prompt, "Suffix": suffix, "Response": ""}
        return execute(self._nodes, values | _thinking(variables))

    def _by_turns(self, messages: Sequence[Mapping[str, object]]) -> str:
        """A system message belongs to the turn after it."""
        done, turn = [], dict.fromkeys(("System", "Prompt", "Response"), "")
        for message in messages:
            role, content = message.get("role"), str(message.get("content") or "")
            ends = (turn["Prompt"] or turn["Response"]) if role == "system" else role == "user" and turn["Response"]
            if ends:
                done.append(execute(self._nodes, turn))
                turn = dict.fromkeys(turn, "")
            part = {"system": "System", "user": "Prompt", "assistant": "Response"}.get(str(role))
            if part:
                turn[part] = content
        return "".join((*done, execute(until_response(self._nodes)[0], turn)))


def _collated(messages: Sequence[Mapping[str, object]]) -> tuple[str, list[Mapping[str, object]]]:
    """All system texts, and the messages with neighbours of one role joined, but for tools and their calls."""
    system = [str(message.get("content") or "") for message in messages if message.get("role") == "system"]
    joined: list[Mapping[str, object]] = []
    for message in messages:
        last = joined[-1] if joined else {}
        same = last.get("role") == message.get("role") != "tool"
        if same and not last.get("tool_calls") and not message.get("tool_calls"):
            joined[-1] = {**last, "content": f"{last.get('content') or ''}\n\n{message.get('content') or ''}"}
        else:
            joined.append(message)
    return "\n\n".join(system), joined


def _thinking(variables: Mapping[str, object]) -> dict[str, object]:
    return {
        "Think": bool(variables.get("enable_thinking")),
        "ThinkLevel": str(variables.get("reasoning_effort", "")),
        "IsThinkSet": "enable_thinking" in variables,
    }
