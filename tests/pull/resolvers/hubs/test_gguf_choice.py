"""Choice of the GGUF files in a repository: the rules of llama.cpp's ``-hf`` option and their properties."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_server.pull.resolvers.hubs.gguf_choice import (
    NOT_WEIGHTS,
    NoGGUFFile,
    NoMatchingFile,
    choose_gguf,
    quantization_bits,
    quantizations,
)
from corral_server.pull.resolvers.split_files import parse_split

BARTOWSKI = (
    "README.md",
    "Qwen2.5-7B-Instruct-IQ2_M.gguf",
    "Qwen2.5-7B-Instruct-Q4_0.gguf",
    "Qwen2.5-7B-Instruct-Q4_K_M.gguf",
    "Qwen2.5-7B-Instruct-Q8_0.gguf",
    "Qwen2.5-7B-Instruct-f16.gguf",
    "Qwen2.5-7B-Instruct.imatrix",
)
UNSLOTH = (
    "BF16/GLM-4.5-BF16-00001-of-00002.gguf",
    "BF16/GLM-4.5-BF16-00002-of-00002.gguf",
    "GLM-4.5-UD-TQ1_0.gguf",
    "UD-Q4_K_XL/GLM-4.5-UD-Q4_K_XL-00001-of-00003.gguf",
    "UD-Q4_K_XL/GLM-4.5-UD-Q4_K_XL-00002-of-00003.gguf",
    "UD-Q4_K_XL/GLM-4.5-UD-Q4_K_XL-00003-of-00003.gguf",
    "imatrix_unsloth.gguf",
)
VISION = (
    "gemma-3-4b-it-Q4_K_M.gguf",
    "gemma-3-4b-it-f16.gguf",
    "mmproj-model-Q8_0.gguf",
    "mmproj-model-f16.gguf",
)


@pytest.mark.parametrize(
    ("paths", "quantization", "chosen"),
    [
        (BARTOWSKI, None, "Qwen2.5-7B-Instruct-Q4_K_M.gguf"),
        (BARTOWSKI, "q8_0", "Qwen2.5-7B-Instruct-Q8_0.gguf"),
        (BARTOWSKI, "F16", "Qwen2.5-7B-Instruct-f16.gguf"),
        (BARTOWSKI, "latest", "Qwen2.5-7B-Instruct-Q4_K_M.gguf"),
        (BARTOWSKI, "qwen2.5-7b-instruct-iq2_m.gguf", "Qwen2.5-7B-Instruct-IQ2_M.gguf"),
        (("a-Q5_K_M.gguf", "a-Q8_0.gguf"), None, "a-Q8_0.gguf"),
        (("a-Q5_K_M.gguf", "a-IQ1_S.gguf"), None, "a-Q5_K_M.gguf"),
        (("a.Q4_K_M.gguf", "a-Q4_K_M.gguf"), None, "a.Q4_K_M.gguf"),
        (("mmproj-Q4_K_M.gguf", "mtp-a-Q4_K_M.gguf", "a-Q2_K.gguf"), None, "a-Q2_K.gguf"),
        (("a-Q2_K_L.gguf", "a-Q2_K.gguf"), "Q2_K", "a-Q2_K.gguf"),
        (("a-latest.gguf", "a-Q4_K_M.gguf"), "latest", "a-latest.gguf"),
    ],
)
def test_one_file(paths: Sequence[str], quantization: str | None, chosen: str) -> None:
    assert choose_gguf(paths, quantization=quantization).weights == (chosen,)


def test_a_quantization_is_a_whole_word_if_a_file_has_it_as_one() -> None:
    paths = ("a-BF16.gguf", "a-F16.gguf", "a-UD-Q4_K_XL.gguf")
    assert choose_gguf(paths, quantization="F16").weights == ("a-F16.gguf",)
    assert choose_gguf(paths[:1], quantization="F16").weights == ("a-BF16.gguf",)
    assert choose_gguf(paths, quantization="Q4_K_XL").weights == ("a-UD-Q4_K_XL.gguf",)


def test_all_parts_of_a_split_file_in_a_folder() -> None:
    assert choose_gguf(UNSLOTH, quantization="UD-Q4_K_XL").weights == UNSLOTH[3:6]
    assert choose_gguf(tuple(reversed(UNSLOTH)), quantization="bf16").weights == UNSLOTH[:2]
    assert choose_gguf(UNSLOTH, path=UNSLOTH[4]).weights == UNSLOTH[3:6]


def test_a_split_file_without_all_parts_names_the_missing_ones() -> None:
    with pytest.raises(NoMatchingFile, match=r"split into 3 parts, and it lacks UD.*-00002-of-00003\.gguf$"):
        choose_gguf((*UNSLOTH[:4], UNSLOTH[5]), quantization="Q4_K_XL")


def test_a_split_file_with_too_many_parts_prevents_no_other_choice() -> None:
    paths = ("a-Q8_0-00001-of-99999.gguf", "a-Q4_0.gguf")
    assert choose_gguf(paths, quantization="Q4_0").weights == ("a-Q4_0.gguf",)
    with pytest.raises(NoMatchingFile, match="split into 99999 parts"):
        choose_gguf(paths, quantization="Q8_0")


def test_a_path_is_found_without_regard_to_case_but_the_exact_one_first() -> None:
    paths = ("sub/A.gguf", "sub/a.gguf")
    assert choose_gguf(paths, path="sub/a.gguf").weights == ("sub/a.gguf",)
    assert choose_gguf(paths, path="SUB/A.GGUF").weights == ("sub/A.gguf",)
    assert choose_gguf(VISION, path="mmproj-model-f16.gguf").paths == ("mmproj-model-f16.gguf",)


@pytest.mark.parametrize(
    ("paths", "weights", "projector"),
    [
        (VISION, VISION[0], "mmproj-model-Q8_0.gguf"),
        (VISION, VISION[1], "mmproj-model-f16.gguf"),
        (("a-Q4_K_M.gguf", "mmproj-F32.gguf", "mmproj-BF16.gguf"), "a-Q4_K_M.gguf", "mmproj-BF16.gguf"),
        (("a-Q4_K_M.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf"), "a-Q4_K_M.gguf", "mmproj-F16.gguf"),
        (("a-Q4_K_M.gguf", "sub/mmproj-F16.gguf"), "a-Q4_K_M.gguf", None),
        (("q/a-Q4_K_M.gguf", "mmproj-Q4_0.gguf", "q/mmproj-F16.gguf"), "q/a-Q4_K_M.gguf", "q/mmproj-F16.gguf"),
        (("q/a-Q4_K_M.gguf", "mmproj-F16.gguf"), "q/a-Q4_K_M.gguf", "mmproj-F16.gguf"),
        (("a-Q4_K_M.gguf", "mmproj-1-F16.gguf", "mmproj-2-F16.gguf"), "a-Q4_K_M.gguf", "mmproj-1-F16.gguf"),
    ],
)
def test_the_projector(paths: Sequence[str], weights: str, projector: str | None) -> None:
    assert choose_gguf(paths, path=weights).projector == projector


def test_a_missing_quantization_names_those_that_exist() -> None:
    text = r"no quantization 'Q5_K_M'; it has BF16, TQ1_0, Q4_K_XL$"
    with pytest.raises(NoMatchingFile, match=text):
        choose_gguf(UNSLOTH, quantization="Q5_K_M")


def test_a_missing_path_names_the_files_that_exist() -> None:
    with pytest.raises(NoMatchingFile, match=r"no file 'b\.gguf'; it has a-Q4_0\.gguf$"):
        choose_gguf(("README.md", "a-Q4_0.gguf"), path="b.gguf")


def test_the_list_in_an_error_is_bounded() -> None:
    with pytest.raises(NoMatchingFile) as error:
        choose_gguf([f"{'x' * 900}-Q{number}_0.gguf" for number in range(500)], quantization="F16")
    assert str(error.value).endswith("and 470 more")
    assert len(str(error.value)) < 8000


@pytest.mark.parametrize(
    ("paths", "text"),
    [
        ((), "the repository has no files"),
        (("README.md",), "the repository has no GGUF file$"),
        (("model-00001-of-00002.safetensors", "x.bin"), "only weights in bin and safetensors format"),
        (("mmproj-F16.gguf",), "no GGUF weights, only mmproj-F16.gguf"),
    ],
)
def test_a_repository_without_gguf_weights(paths: Sequence[str], text: str) -> None:
    with pytest.raises(NoGGUFFile, match=text):
        choose_gguf(paths)


@pytest.mark.parametrize(
    ("path", "bits"),
    [
        ("a-Q4_0.gguf", 4),
        ("a-BF16.gguf", 16),
        ("a-NVFP4.gguf", 4),
        ("a.Q8_K_M-00001-of-00002.gguf", 8),
        ("a-f32.gguf", 32),
        ("model.gguf", 0),
        (f"a-Q{'9' * 900}.gguf", 999999),
    ],
)
def test_the_bits_of_a_quantization(path: str, bits: int) -> None:
    assert quantization_bits(path) == bits


TAGS = ("Q4_K_M", "Q8_0", "q4_0", "F16", "BF16", "UD-Q4_K_XL", "IQ2_XXS", "")
NAMES = st.builds(
    lambda folder, stem, tag, suffix: f"{folder}{stem}{'-' + tag if tag else ''}{suffix}",
    st.sampled_from(("", "", "a/", "a/b/", "mmproj/", "Q8_0/")),
    st.sampled_from(("model", "m.2", "mmproj-m", "imatrix", "mtp-m", "eagle3-m")),
    st.sampled_from(TAGS),
    st.sampled_from((".gguf", ".gguf", "-00001-of-00002.gguf", "-00002-of-00002.gguf", ".md", ".safetensors")),
)
PATHS = st.lists(NAMES, max_size=12, unique=True)
QUANTIZATIONS = st.sampled_from((None, *(tag for tag in TAGS if tag)))


def llama_cpp_choice(paths: Sequence[str], tag: str | None) -> str | None:
    """Return the file of ``find_best_model`` in llama.cpp's ``common/download.cpp``, written from its rules alone."""

    def usable(path: str) -> bool:
        excluded = any(word in path.split("/")[-1] for word in NOT_WEIGHTS)
        part = re.search("-([0-9]{5})-of-([0-9]{5})[.]gguf$", path)
        return path.endswith(".gguf") and not excluded and (part is None or part[1] == "00001")

    rest = [path for path in paths if usable(path)]
    for wanted in [tag] if tag else ["Q4_K_M", "Q8_0"]:
        for path in rest:
            if f"{wanted.lower()}." in path.lower() or f"{wanted.lower()}-" in path.lower():
                return path
    return rest[0] if rest and not tag else None


def is_incomplete(paths: Sequence[str], path: str) -> bool:
    return path.endswith("-00001-of-00002.gguf") and path.replace("-00001-", "-00002-") not in paths


@given(PATHS, QUANTIZATIONS)
def test_the_choice_is_that_of_llama_cpp(paths: Sequence[str], tag: str | None) -> None:
    paths = [path for path in paths if tag != "F16" or "BF16" not in path]
    expected = llama_cpp_choice(paths, tag)
    if expected is None or is_incomplete(paths, expected):
        with pytest.raises(NoMatchingFile):
            choose_gguf(paths, quantization=tag)
    else:
        assert choose_gguf(paths, quantization=tag).weights[0] == expected


@given(PATHS, QUANTIZATIONS)
def test_chosen_files_exist_and_are_usable(some: Sequence[str], tag: str | None) -> None:
    other_parts = [path.replace("-00001-of", "-00002-of") for path in some]
    paths = list(dict.fromkeys([*other_parts, *some, f"z-{tag or 'Q4_K_M'}.gguf"]))
    choice = choose_gguf(paths, quantization=tag)
    assert set(choice.paths) <= set(paths)
    assert len(set(choice.paths)) == len(choice.paths)
    for path in choice.weights:
        assert not any(word in path.rpartition("/")[2] for word in NOT_WEIGHTS)
    split = parse_split(choice.weights[0])
    assert choice.weights == (split.parts() if split else choice.weights[:1])
    if choice.projector is not None:
        assert "mmproj" in choice.projector
        folder = choice.projector.rpartition("/")[0]
        assert not folder or choice.weights[0].startswith(f"{folder}/")


@given(PATHS)
def test_every_listed_quantization_can_be_chosen(paths: Sequence[str]) -> None:
    complete = [path for path in paths if parse_split(path) is None]
    for name in quantizations(complete):
        assert choose_gguf(complete, quantization=name).weights
