"""Environment variables that carry a runner's Model."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from corral_core.contracts.model_variable import MAX_PART_BYTES, model_text, model_variables


@pytest.mark.parametrize("text", ["", "{}", "a" * MAX_PART_BYTES, "a" * (MAX_PART_BYTES + 1), "aé€😀" * 100_000])
def test_the_variables_carry_any_text(text: str) -> None:
    variables = model_variables(text)
    assert max(len(value.encode()) for value in variables.values()) <= MAX_PART_BYTES
    assert model_text(variables) == text


def test_a_small_model_is_in_one_variable() -> None:
    assert model_variables('{"name": "a"}') == {"CORRAL_MODEL": '{"name": "a"}'}


def test_a_lone_surrogate_is_replaced() -> None:
    assert model_text(model_variables("a\ud800b")) == "a?b"


def test_the_kernel_passes_a_text_beyond_its_limit_of_one_variable() -> None:
    text = "😀" * 200_000
    with pytest.raises(OSError, match="Argument list too long"):
        subprocess.run([sys.executable, "-c", ""], env={"CORRAL_MODEL": text}, check=True, timeout=60)
    imports = "import os; from corral_core.contracts.model_variable import model_text"
    done = subprocess.run(
        [sys.executable, "-c", f"{imports}; print(ascii(model_text(os.environ)))"],
        env={**os.environ, **model_variables(text)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == ascii(text)
