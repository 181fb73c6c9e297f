"""Dockerfile: what it installs is checked by hashes, and its targets fit the scripts, the settings and the runner."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from corral_core.model.accelerator import accelerators_for
from corral_operator.config import DEFAULT_IMAGES
from scripts import ggml_backend, images, llama_cuda, llama_rocm, llama_vulkan, llama_wheel

ROOT = Path(__file__).resolve().parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
BACKENDS: Mapping[str, ggml_backend.Backend] = {
    "vulkan": llama_vulkan.backend(),
    "cuda": llama_cuda.backend(),
    "rocm": llama_rocm.backend(),
}


def stage(name: str) -> str:
    """Return the text of a stage of the Dockerfile."""
    found = re.search(rf"^FROM \S+ AS {name}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert found is not None, name
    return found[1]


def test_everything_that_pip_installs_has_a_hash_or_is_built_here() -> None:
    commands = re.findall(r"/build/images/pip install ([^&\n]*)", DOCKERFILE)
    assert len(commands) >= 5
    for command in commands:
        assert "--no-index" in command or {"--require-hashes", "--only-binary"} <= set(command.split()), command


@pytest.mark.parametrize("file", sorted((ROOT / "requirements").glob("*.txt")), ids=lambda file: file.name)
def test_every_requirement_has_a_version_and_a_hash(file: Path) -> None:
    requirements = file.read_text().replace("\\\n", " ").splitlines()
    assert requirements
    assert [line for line in requirements if "==" not in line or "--hash=sha256:" not in line] == []


def test_the_cuda_libraries_of_the_image_are_those_that_the_backend_is_linked_with() -> None:
    compiled, shipped = ((ROOT / f"requirements/{name}.txt").read_text() for name in ("cuda", "cuda-runtime"))
    assert all(part in compiled for part in re.split(r"\n(?=\S)", shipped.strip()))


def test_there_is_a_target_for_each_accelerator_of_the_settings() -> None:
    accelerators = {each for vendor in ("nvidia", "amd", "gpu.intel") for each in accelerators_for(f"{vendor}.com/gpu")}
    assert accelerators == BACKENDS.keys()
    assert set(re.findall(r"^FROM runner AS runner-(\w+)$", DOCKERFILE, re.MULTILINE)) == accelerators
    assert all(image == images.tag(f"runner-{each}") for each, image in DEFAULT_IMAGES.items())


@pytest.mark.parametrize("name", BACKENDS)
def test_a_backend_is_compiled_like_the_wheel_that_loads_it(name: str) -> None:
    loaded = {"-DGGML_NATIVE=OFF", "-DGGML_BACKEND_DL=ON"}
    assert loaded <= set(BACKENDS[name].all_flags)
    assert loaded <= set(llama_wheel.PORTABLE_FLAGS)


@pytest.mark.parametrize("name", BACKENDS)
def test_the_image_takes_the_library_that_its_script_compiles(name: str) -> None:
    text = stage(f"runner-{name}-env")
    assert f"/build/images/backend_files.py /dist/{BACKENDS[name].library.name} /runner /rootfs" in text
    compiling = text if name == "rocm" else stage(name)
    assert f"/build/images/ggml-backend {name} /dist" in compiling


def test_the_caches_replace_stages_of_the_dockerfile() -> None:
    assert set(re.findall(r"^FROM scratch AS (\S+)$", DOCKERFILE, re.MULTILINE)) - {"control", "runner"} == set(
        images.CACHES
    )


def test_every_copied_script_is_in_the_build_context() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    copied = {f"scripts/{name}" for name in re.findall(r"scripts/(\w+\.py)", DOCKERFILE)}
    assert copied
    assert {name for name in copied if f"!{name}" not in ignored} == set()


def test_the_folder_of_the_wheels_is_completed_to_a_cuda_toolkit(tmp_path: Path) -> None:
    libraries = tmp_path / "lib"
    libraries.mkdir()
    for name in llama_cuda.LINKED:
        (libraries / f"lib{name}.so.13").touch()
    llama_cuda.complete(tmp_path)
    assert (tmp_path / "lib64/libcudart.so").resolve() == libraries / "libcudart.so.13"
    assert b"libcuda.so.1" in (libraries / "stubs/libcuda.so").read_bytes()
