"""Tables of ``corral show`` in the form of Ollama's command."""

from __future__ import annotations

from corral_server.local.cli.show import part_text, sections

ANSWER = {
    "license": "Apache License\nVersion 2.0, January 2004\nhttp://www.apache.org/licenses/\n",
    "parameters": 'stop    "<|im_end|>"\ntemperature    0.7',
    "system": "Be brief.",
    "template": "{{ .Prompt }}",
    "details": {"family": "llama", "parameter_size": "134.52M", "quantization_level": "Q4_1"},
    "model_info": {"general.architecture": "llama", "llama.context_length": 8192, "llama.embedding_length": 576},
    "capabilities": ["completion", "tools"],
}


def test_every_part_that_the_model_has_is_a_table() -> None:
    assert dict(sections(ANSWER)) == {
        "Model": [
            ("architecture", "llama"),
            ("parameters", "134.52M"),
            ("context length", "8192"),
            ("embedding length", "576"),
            ("quantization", "Q4_1"),
        ],
        "Capabilities": [("completion", ""), ("tools", "")],
        "Parameters": [("stop", '"<|im_end|>"'), ("temperature", "0.7")],
        "System": [("Be brief.", "")],
        "License": [("Apache License", ""), ("Version 2.0, January 2004", "")],
    }


def test_parts_without_content_are_left_out() -> None:
    assert list(sections({"details": {"family": "llama"}, "system": None})) == [("Model", [("architecture", "llama")])]


def test_one_part_is_printed_as_it_is() -> None:
    assert part_text(ANSWER, "system") == "Be brief."
    assert part_text(ANSWER, "template") == "{{ .Prompt }}"
    assert part_text(ANSWER, "modelfile") == ""
