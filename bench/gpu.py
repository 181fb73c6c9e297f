"""Tokens/s, first-token time and GPU memory of a runner on a GPU, beside llama.cpp's own server and the prediction.

For a machine with an NVIDIA GPU and without a network; it takes less than ten minutes. Everything is in one folder that
was prepared on a machine with a network and the same Python version:

    FOLDER/*.whl        the packages of requirements/runner.txt, and the portable llama-cpp-python (make wheel)
    FOLDER/backends/    libggml-cpu-*.so of that wheel, and libggml-cuda.so (scripts/llama_cuda.py)
    FOLDER/lib/         the libraries of the packages in requirements/cuda-runtime.txt: CUDA's runtime and cuBLAS
    FOLDER/peer/*.whl   optional: xllamacpp with CUDA, which is llama.cpp's server
    FOLDER/*.gguf       the model, unless --model names it

This program makes an environment of these wheels and runs ``bench/gpu_measures.py`` in it. Without wheels in the folder
it takes the Python that runs it.

- ``streams``: tokens/s and mean time to first token in seconds, by the number of concurrent requests;
- ``vram_mib``: of each GPU as predicted, in llama.cpp's own buffers, and by NVML (``cuda`` only);
- ``llamacpp_vram_mib``: of llama.cpp's server by NVML; near 0 means that its wheel has no CUDA;
- ``split``: the same model over all GPUs by layers, on each MIG slice, or twice on one GPU; which one is in ``kind``.

    python bench/gpu.py FOLDER [--backend cuda|vulkan] [--model FILE] [--streams 1,8,32] [--seconds 540]

``--backend vulkan`` runs on any Vulkan device, and on Mesa's lavapipe as a check of this program. Lavapipe of Mesa 22.3
crashes in a fused operation, so fusion is switched off there:

    GGML_VK_DISABLE_FUSION=1 python bench/gpu.py FOLDER --backend vulkan --model tiny --devices 0,0 --streams 1,2 \\
        --tokens 4
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_DRIVER = "libnvidia-ml.so.1"


def environment(wheels: list[Path], home: Path, *, use: Path) -> Path:
    """Return the Python of a new environment with these wheels; ``use`` without any."""
    if not wheels:
        return use
    subprocess.run([str(use), "-m", "venv", "--clear", str(home)], check=True)
    python = home / "bin/python"
    install = [str(python), "-m", "pip", "install", "-q", "--no-index", "--no-deps", *map(str, wheels)]
    subprocess.run(install, check=True)
    return python


def require_device(backend: str) -> None:
    """Raise SystemExit when the backend cannot have a device."""
    if backend != "cuda":
        return
    try:
        ctypes.CDLL(_DRIVER)
    except OSError as error:
        raise SystemExit(
            f"no NVIDIA GPU: {_DRIVER} of NVIDIA's driver is not on this machine ({error}). "
            "--backend vulkan runs on any Vulkan device."
        ) from error


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A runner on a GPU beside llama.cpp's own server.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--backend", choices=("cuda", "vulkan"), default="cuda")
    parser.add_argument("--model", default="", help="a GGUF file, or 'tiny' for a small one with random weights")
    parser.add_argument(
        "--devices", default="", help="as CUDA_VISIBLE_DEVICES or GGML_VK_VISIBLE_DEVICES; default: all"
    )
    parser.add_argument("--streams", default="1,8,32")
    parser.add_argument("--tokens", type=int, default=128, help="generated for each request")
    parser.add_argument("--seconds", type=int, default=540, help="after which the result is printed as far as it is")
    return parser.parse_args()


def main() -> None:
    started = time.monotonic()
    arguments = parsed()
    require_device(arguments.backend)
    folder = arguments.folder.resolve()
    with tempfile.TemporaryDirectory(prefix="corral-gpu-") as home:
        python = environment(sorted(folder.glob("*.whl")), Path(home) / "ours", use=Path(sys.executable))
        peers = sorted((folder / "peer").glob("*.whl"))
        peer = environment(peers, Path(home) / "peer", use=Path(sys.executable)) if peers else ""
        libraries = [str(folder / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
        packages = [str(ROOT / "operator"), str(ROOT / "server"), os.environ.get("PYTHONPATH", "")]
        variables = {
            **os.environ,
            "PYTHONPATH": ":".join(filter(None, packages)),
            "LD_LIBRARY_PATH": ":".join(filter(None, libraries)),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        }
        if (backends := folder / "backends").is_dir():
            variables["CORRAL_LLAMA_BACKENDS"] = str(backends)
        left = max(1, arguments.seconds - round(time.monotonic() - started))
        command = [str(python), str(Path(__file__).with_name("gpu_measures.py")), str(folder), f"--peer={peer}"]
        options = ("backend", "model", "devices", "streams", "tokens")
        command += [f"--{name}={getattr(arguments, name)}" for name in options]
        raise SystemExit(subprocess.run([*command, f"--seconds={left}"], env=variables, check=False).returncode)


if __name__ == "__main__":
    main()
