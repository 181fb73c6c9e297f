"""What a runner's container asks for and may take: from the estimate of its memory, unless the Model says it itself.

Memory: the estimate is asked for, and is the limit. CPU: a little is asked for and nothing is forbidden, so a node that
is otherwise idle computes with all its cores.
Each of requests and limits gives way alone to what ``spec.pod.resources`` says of it.
"""

from __future__ import annotations

from corral_core.errors import InvalidSetting
from corral_core.estimate import MIB, Estimate, estimate
from corral_core.facts import ModelFacts
from corral_core.jsonfields import text
from corral_core.load import Wish, loads, wish
from corral_core.model import Model
from corral_core.quantities import CPU, MEMORY, amount
from corral_operator.config import RunnerDefaults


def sizings(model: Model, facts: ModelFacts | None, defaults: RunnerDefaults) -> list[Estimate]:
    """The ways in which the runner may load, and what they take, the best first. None without facts.

    Of ``parallel: auto`` those remain that fit the memory limit which the Model gives, one at least.
    """
    if facts is None or facts.shape is None:
        return []
    ways = loads(_wish(model, defaults), facts)
    estimates = [estimate(facts.shape, way, gpus=model.spec.gpu.count, adapters=facts.adapters_size) for way in ways]
    limit = given_limit(model)
    return [made for made in estimates if limit is None or made.total <= limit] or estimates[-1:]


def given_limit(model: Model) -> int | None:
    """Bytes of memory that the Model itself says a runner may take."""
    limits = model.spec.pod.resources.get("limits", {})
    return amount(MEMORY, limits[MEMORY]) if MEMORY in limits else None


def resources(model: Model, made: Estimate | None, *, defaults: RunnerDefaults) -> dict[str, object]:
    """The container's ``resources``. A limit that the Model gives alone is what is asked for too, as in Kubernetes."""
    given = model.spec.pod.resources
    requests: dict[str, object] = dict(given.get("requests", {}))
    limits: dict[str, object] = dict(given.get("limits", {}))
    if CPU not in requests and CPU not in limits and amount(CPU, defaults.cpu):
        requests[CPU] = defaults.cpu
    if made is not None and MEMORY not in limits:
        requests.setdefault(MEMORY, f"{made.total // MIB}Mi")
        limits[MEMORY] = max(f"{made.total // MIB}Mi", requests[MEMORY], key=lambda size: amount(MEMORY, size))
    if model.spec.gpu.count > 0:
        limits[model.spec.gpu.resource] = model.spec.gpu.count
    return {kind: amounts for kind, amounts in (("requests", requests), ("limits", limits)) if amounts}


def _wish(model: Model, defaults: RunnerDefaults) -> Wish:
    """What the runner will read in its environment. A value there that it refuses is the runner's to tell."""
    variables = (*defaults.env, *model.spec.pod.env)
    said = {text(item, "name"): text(item, "value") for item in variables if "value" in item}
    try:
        return wish(model.spec, {**defaults.settings, **said})
    except InvalidSetting:
        return wish(model.spec, defaults.settings)
