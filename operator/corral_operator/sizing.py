"""How a Model's runner is to load, of several ways that it may: one that some node could take.

``parallel: auto`` is four requests at once, then one. The nodes are asked when a runner is to be started, and one that
runs is left as it is: no node that comes or goes rolls a Model.
"""

from __future__ import annotations

from corral_core.estimate import Estimate
from corral_core.facts import ModelFacts
from corral_core.fit import choose
from corral_core.model import Model
from corral_core.node import Needs, needs_of
from corral_operator.config import RunnerDefaults
from corral_operator.observe import Store
from corral_operator.resources import sizings
from corral_operator.runner_pod import pod_spec


def chosen(
    store: Store, model: Model, facts: ModelFacts | None, *, defaults: RunnerDefaults, held: Needs | None
) -> Estimate | None:
    """None without facts: then nothing can be said. ``held`` is what the runner that there is asks of its node."""
    made = sizings(model, facts, defaults)
    if facts is None or len(made) < 2:
        return made[0] if made else None
    ways = [needs_of(pod_spec(model, facts.size, each, defaults=defaults)) for each in made]
    return made[choose([state.node for state in store.nodes.states()], ways, held=held)]
