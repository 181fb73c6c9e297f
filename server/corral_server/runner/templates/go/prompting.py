"""Prompts from Go templates, as Ollama builds them (``template/template.go``).

A template that iterates over ``.Messages`` is executed once. An older one, with ``.Prompt`` and ``.Response``, is
executed once for each turn, the last time only up to its ``.Response``, where the model continues.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corral_server.runner.templates.go.execute import execute
from corral_server.runner.templates.go.nodes import Action, Field, Node, Pipeline, field_names, until_response
from corral_server.runner.templates.go.parse import parse
from corral_server.runner.templates.go.tools import message_struct, tool_struct
from corral_server.runner.templates.go.values import JsonList
from corral_server.runner.templates.limits import RenderBudget

_RESPONSE = Action(Pipeline((Field(("Response",)),)))


class GoTemplate:
    """A parsed template. Rendering is safe from any thread."""

    def __init__(self, source: str) -> None:
        """Raises UnsupportedTemplate, whose message names the construct."""
        nodes = parse(source)
        names = set(field_names(nodes))
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
        """Raises UnsupportedTemplate and TemplateLimit."""
        system, joined = _merge_neighbours(messages)
        if not self._by_messages:
            return self._render_turns(joined)
        values: dict[str, object] = {
            "System": system,
            "Messages": [message_struct(message) for message in joined],
            "Tools": JsonList(tuple(map(tool_struct, tools))) if tools else None,
            "Response": "",
        }
        return execute(self._nodes, values | _thinking(variables))

    def insert(self, prompt: str, suffix: str, variables: Mapping[str, object]) -> str:
        """Return the prompt for the text between prompt and suffix."""
        values = {"Prompt": prompt, "Suffix": suffix, "Response": ""}
        return execute(self._nodes, values | _thinking(variables))

    def _render_turns(self, messages: Sequence[Mapping[str, object]]) -> str:
        """Execute the template once for each turn. A system message belongs to the turn after it."""
        budget = RenderBudget()
        prompts, turn = [], dict.fromkeys(("System", "Prompt", "Response"), "")
        for message in messages:
            role, content = message.get("role"), str(message.get("content") or "")
            ends = (turn["Prompt"] or turn["Response"]) if role == "system" else role == "user" and turn["Response"]
            if ends:
                prompts.append(execute(self._nodes, turn, budget))
                turn = dict.fromkeys(turn, "")
            part = {"system": "System", "user": "Prompt", "assistant": "Response"}.get(str(role))
            if part:
                turn[part] = content
        return "".join((*prompts, execute(until_response(self._nodes)[0], turn, budget)))


def _merge_neighbours(messages: Sequence[Mapping[str, object]]) -> tuple[str, list[Mapping[str, object]]]:
    """Return all system texts, and the messages with neighbours of one role joined, except tool results and calls."""
    system = [str(message.get("content") or "") for message in messages if message.get("role") == "system"]
    groups: list[list[Mapping[str, object]]] = []
    for message in messages:
        last = groups[-1][-1] if groups else {}
        same = last.get("role") == message.get("role") != "tool"
        if same and not groups[-1][0].get("tool_calls") and not message.get("tool_calls"):
            groups[-1].append(message)
        else:
            groups.append([message])
    return "\n\n".join(system), list(map(_join, groups))


def _join(group: Sequence[Mapping[str, object]]) -> Mapping[str, object]:
    if len(group) == 1:
        return group[0]
    return {**group[0], "content": "\n\n".join(str(message.get("content") or "") for message in group)}


def _thinking(variables: Mapping[str, object]) -> dict[str, object]:
    return {
        "Think": bool(variables.get("enable_thinking")),
        "ThinkLevel": str(variables.get("reasoning_effort", "")),
        "IsThinkSet": "enable_thinking" in variables,
    }
