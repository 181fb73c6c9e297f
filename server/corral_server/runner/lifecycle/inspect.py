"""Entry point of ``python -m corral_server.runner.lifecycle.inspect``: reads the metadata of a Model's weights.

The metadata is the process's termination message, which the pod's status keeps until the operator has read it; no
server and no connection are needed. An error in the weights is reported in the same way with exit code 1; the kubelet
then restarts the container with back-off, so a transient error heals.

The process does not import llama.cpp and reads only the header of the weights and the sizes of the adapters, which
takes a fraction of a second. A child process asks llama.cpp for its compute buffers (``system.compute_buffers``).
"""

from __future__ import annotations

import os
import sys

from corral_core.base import json_log
from corral_core.base.errors import CorralError
from corral_core.contracts.termination_message import encode_metadata
from corral_core.weights.files import read_model_metadata
from corral_server.runner.lifecycle import log
from corral_server.runner.lifecycle.environment import model_from, roots_from, termination_log_from
from corral_server.runner.lifecycle.process import report_failure
from corral_server.system.compute_buffers import plan_compute_buffers


def main() -> None:
    json_log.configure_logging()
    termination_log = termination_log_from(os.environ)
    try:
        spec = model_from(os.environ).spec
        metadata = read_model_metadata(spec, roots_from(os.environ), plan=plan_compute_buffers)
        message = encode_metadata(metadata)
    except (CorralError, OSError, ValueError) as error:
        sys.exit(report_failure(str(error) or type(error).__name__, termination_log))
    log.event("inspected", source=spec.source, size=metadata.size, family=metadata.family)
    if termination_log is not None:
        termination_log.write_text(message, "ascii")


if __name__ == "__main__":
    main()
