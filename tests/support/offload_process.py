"""Entry point of ``python -m tests.support.offload_process``: plans and loads models, and prints what is on GPUs.

Standard input is a list of cases: ``path``, ``options`` and ``gpu`` (fields of EngineOptions and GPUOptions), and
``plan`` if nothing is to be loaded. The output has one object for each: ``offload`` and ``slots``, or ``error``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from corral_server.runner.engine.contexts import EngineOptions, GPUOptions
from corral_server.runner.engine.engine import LlamaEngine
from corral_server.runner.engine.loading.offload import plan_offload
from corral_server.runner.llama.errors import LoadFailed


def run(case: Mapping[str, Any]) -> dict[str, object]:
    gpu: dict[str, Any] = case.get("gpu", {})
    options = EngineOptions(gpu=GPUOptions(**gpu), threads=1, **case.get("options", {}))
    path = Path(case["path"])
    try:
        if case.get("plan"):
            plan = plan_offload(path, options)
            placement = plan.placement
            return {
                "layers": placement.layers if placement.devices else 0,
                "slots": plan.slots,
                "predicted": dict(plan.predicted),
                "reason": plan.reason,
            }
        engine = LlamaEngine.load(path, options)
    except LoadFailed as error:
        return {"error": str(error)}
    try:
        return {"offload": asdict(engine.offload), "slots": engine.slots, "vram": engine.vram_bytes}
    finally:
        engine.close()


if __name__ == "__main__":
    json.dump([run(case) for case in json.load(sys.stdin)], sys.stdout)
