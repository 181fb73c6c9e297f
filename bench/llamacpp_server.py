"""llama.cpp's HTTP server from the package ``xllamacpp``, until its standard input is closed.

``bench/engine.py`` and ``bench/embeddings.py`` run it with a Python that has xllamacpp. The argument is a JSON object
of settings. The first line of output is the server's address.
"""

from __future__ import annotations

import json
import sys

import xllamacpp


def main() -> None:
    wanted = json.loads(sys.argv[1])
    params = xllamacpp.CommonParams()
    params.model.path = wanted["model"]
    if wanted.get("projector"):
        params.mmproj.path = wanted["projector"]
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.n_ctx = wanted["context"] * wanted["slots"]
    params.n_parallel = wanted["slots"]
    params.cpuparams.n_threads = wanted["threads"]
    params.cpuparams_batch.n_threads = wanted["threads"]
    params.n_gpu_layers = wanted.get("gpu_layers", 0)
    params.embedding = wanted.get("embedding", False)
    params.cache_ram_mib = 0  # prompts do not repeat here, so copying them into its RAM cache would only slow it
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
