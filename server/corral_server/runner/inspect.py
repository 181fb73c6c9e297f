"""``python -m corral_server.runner.inspect``: reads the header of a Model's weights, and tells their facts.

The facts are the process's last words (``packed``): the pod's status keeps them until the operator has read them, so
nothing is served, and no party has to be there while the other one is. What is wrong with the weights is told in the
same place, with exit code 1; the kubelet then starts it again, after growing pauses, so that it heals.

It imports no llama.cpp and reads nothing but the header (and how long the adapters are), in a fraction of a second.
"""

from __future__ import annotations

import os
import sys

from corral_core import jsonlog
from corral_core.errors import CorralError
from corral_core.packed import pack
from corral_core.weights import read_model
from corral_server.runner import log
from corral_server.runner.process import fail
from corral_server.runner.told import model_of, pvc_root_of, termination_log_of


def main() -> None:
    jsonlog.configure()
    termination_log = termination_log_of(os.environ)
    try:
        spec = model_of(os.environ).spec
        facts = read_model(spec, pvc_root_of(os.environ))
        told = pack(facts)
    except (CorralError, OSError, ValueError) as error:
        sys.exit(fail(str(error) or type(error).__name__, termination_log))
    log.event("inspected", source=spec.source, size=facts.size, family=facts.family)
    if termination_log is not None:
        termination_log.write_text(told, "ascii")


if __name__ == "__main__":
    main()
