"""Modelfiles, as Ollama reads them (``parser/parser_test.go``)."""

from __future__ import annotations

import pytest

from corral_server.local.management.modelfile import InvalidModelfile, Modelfile, parse_modelfile


def test_all_commands() -> None:
    text = '''# a comment
FROM ./tiny.gguf
adapter lora.gguf

PARAMETER num_ctx 4096
PARAMETER temperature 0.7
parameter use_mmap true
PARAMETER stop "<|end|>"
PARAMETER stop 12
TEMPLATE """{{ .System }}
  "{{ .Prompt }}"
"""
SYSTEM be brief  
LICENSE "MIT
and more"
LICENSE Apache-2.0
MESSAGE user hello there
MESSAGE assistant """hi"""
'''  # noqa: W291
    assert parse_modelfile(text) == Modelfile(
        source="./tiny.gguf",
        adapters=("lora.gguf",),
        template='{{ .System }}\n  "{{ .Prompt }}"\n',
        system="be brief",
        licenses=("MIT\nand more", "Apache-2.0"),
        parameters={"num_ctx": 4096, "temperature": 0.7, "use_mmap": True, "stop": ["<|end|>", "12"]},
        messages=(("user", "hello there"), ("assistant", "hi")),
    )


def test_a_name_with_a_tag_and_carriage_returns() -> None:
    found = parse_modelfile("\r\nFROM hf.co/a/b:Q4_K_M\r\n\r\nSYSTEM x\r\n# end")
    assert (found.source, found.system) == ("hf.co/a/b:Q4_K_M", "x")


def test_a_quoted_value_ends_with_the_first_line_that_ends_with_quotes() -> None:
    found = parse_modelfile('FROM x\nSYSTEM "say "yes" or\n"no" now"\nTEMPLATE """a""" b\n"""')
    assert (found.system, found.template) == ('say "yes" or\n"no" now', 'a""" b\n')


def test_commands_of_ollama_without_effect_are_named() -> None:
    assert parse_modelfile("FROM x\nRENDERER qwen3\nREQUIRES 0.14.0").unused == ("renderer", "requires")


def test_a_parameter_that_is_no_finite_number_is_text() -> None:
    found = parse_modelfile("FROM x\nPARAMETER temperature NaN\nPARAMETER top_p 1e999\nPARAMETER mirostat [1]")
    assert found.parameters == {"temperature": "NaN", "top_p": "1e999", "mirostat": "[1]"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no FROM line"),
        ("SYSTEM x", "no FROM line"),
        ("FROM x\nFRM y", r"\(line 2\): command must be one of \"from\", .*, not 'FRM'"),
        ("FROM x\n\nMESSAGE robot hi", r"\(line 3\): message role must be one of"),
        ("FROM x\nPARAMETER stop", r"\(line 2\): PARAMETER needs a name and a value"),
        ('FROM x\nSYSTEM """a\nb', r'\(line 2\): the closing """ is missing'),
    ],
)
def test_errors_name_the_line(text: str, message: str) -> None:
    with pytest.raises(InvalidModelfile, match=message):
        parse_modelfile(text)
