"""``/api/show`` as the runner knows it: the one Model that it serves, from the header of its weights."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from corral_core.facts import ModelFacts
from corral_core.model import ModelSpec
from corral_server.runner import capabilities
from corral_server.runner.requests import parse_body, read_body
from corral_server.runner.state import Loaded, RunnerState
from corral_server.wire.errors import ApiError

_COPILOT = "GitHubCopilotChat/"


class ShowApi:
    """The endpoint over one runner."""

    def __init__(self, state: RunnerState) -> None:
        self._state = state

    async def show(self, request: Request) -> Response:
        fields = parse_body(await read_body(request), kind="ShowRequest")
        model = fields.text("model") or fields.text("name")
        if not model:
            raise ApiError(400, "model is required")
        capabilities.check_name(model)
        basename = model if request.headers.get("user-agent", "").startswith(_COPILOT) else None
        system = fields.text("system") or None
        loaded = self._state.serving()
        return JSONResponse(
            show_object(loaded, self._state.spec, modified=time.time(), basename=basename, system=system)
        )


def show_object(
    loaded: Loaded, spec: ModelSpec, *, modified: float, basename: str | None = None, system: str | None = None
) -> dict[str, object]:
    """``basename`` is the requested name where a client wants to find it in ``model_info``; ``system`` overrides."""
    system, template = system or loaded.system, loaded.template.source
    optional = {
        "modelfile": modelfile(spec, template, system),
        "parameters": "\n".join(f"{name:<30} {_quoted(value)}" for name, value in _parameters(spec)),
        "template": template,
        "system": system,
    }
    return {
        **{name: text for name, text in optional.items() if text},
        "details": _details(loaded.facts),
        "model_info": _info(loaded.facts, basename),
        "capabilities": list(loaded.facts.capabilities),
        "modified_at": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(modified))}.{int(modified % 1 * 1e9):09d}Z",
    }


def modelfile(spec: ModelSpec, template: str, system: str) -> str:
    """The Model as a Modelfile would say it."""
    lines = [f"FROM {spec.source}", f'TEMPLATE """{template}"""']
    if system:
        lines.append(f'SYSTEM """{system}"""')
    lines += [f"PARAMETER {name} {_quoted(value)}" for name, value in _parameters(spec)]
    return "\n".join(lines) + "\n"


def _parameters(spec: ModelSpec) -> list[tuple[str, object]]:
    """One pair for every line: a list of stop strings becomes several."""
    given: Mapping[str, object] = dict(spec.parameters)
    return [(name, item) for name, value in given.items() for item in (value if isinstance(value, list) else [value])]


def _quoted(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else str(value)


def _details(facts: ModelFacts) -> dict[str, object]:
    return {
        "parent_model": "",
        "format": "gguf",
        "family": facts.family,
        "families": list(facts.families),
        "parameter_size": facts.parameter_size,
        "quantization_level": facts.quantization_level,
    }


def _info(facts: ModelFacts, basename: str | None) -> dict[str, object]:
    """What integrations crash without is there even if the header lacked it."""
    needed: dict[str, object] = {
        "general.architecture": facts.family,
        "general.parameter_count": facts.parameter_count,
        f"{facts.family}.context_length": facts.context_length,
        f"{facts.family}.embedding_length": facts.embedding_length,
    }
    return needed | dict(facts.info) | ({"general.basename": basename} if basename else {})
