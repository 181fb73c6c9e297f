"""The Models of the client tests: one for chats, one with thinking and tools, one for embeddings.

The second has the weights of the first and its own template with examples: so small a model thinks and calls tools only
when it is shown how; at temperature 0 it does so every time.
"""

from __future__ import annotations

from pathlib import Path

from tests.local.served import model_file
from tests.support import minilm
from tests.support.projectors import write_projector
from tests.support.rerankers import write_qwen3

CHATS, CLEVER, EMBEDS, COLD = "tiny", "clever", "minilm", "cold"
SEES, RANKS = "seer", "ranker"
SYSTEM = "You are a helpful assistant."
STOP = "<stop>"
LICENSE = "Apache License\nVersion 2.0"

TEMPLATE = """\
{%- macro turn(role, text) %}<|im_start|>{{ role }}
{{ text }}<|im_end|>
{% endmacro -%}
{%- if tools %}
{{- turn("system", "Call a function: " ~ tools | tojson) }}
{%- for city in ("Oslo", "Lima", "Bonn") %}
{{- turn("user", "What is the weather in " ~ city ~ "?") }}
{{- turn("assistant", '<tool_call>{"name": "get_weather", "arguments": {"city": "' ~ city ~ '"}}</tool_call>') }}
{%- endfor %}
{%- elif enable_thinking %}
{%- for city, country in (("Oslo", "Norway"), ("Lima", "Peru"), ("Bonn", "Germany")) %}
{{- turn("user", "Where is " ~ city ~ "?") }}
{{- turn("assistant", "<think>" ~ city ~ " is a city.</think>" ~ city ~ " is in " ~ country ~ ".") }}
{%- endfor %}
{%- endif %}
{%- for message in messages %}
{%- if message.tool_calls %}
{{- turn("assistant", "<tool_call>" ~ message.tool_calls[0].function | tojson ~ "</tool_call>") }}
{%- elif message.role == "tool" %}
{{- turn("user", "<tool_response>" ~ message.content ~ "</tool_response>") }}
{%- else %}
{{- turn(message.role, message.content) }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

WHERE, WEATHER = "Where is Rome?", "What is the weather in Rome?"
SCHEMA: dict[str, object] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION: dict[str, object] = {"name": "get_weather", "description": "The weather in a city", "parameters": SCHEMA}
TOOL: dict[str, object] = {"type": "function", "function": FUNCTION}


def write_models(folder: Path) -> None:
    """Write the Model files. The test is skipped if a package with weights is not installed."""
    common: dict[str, object] = {"contextLength": 1024, "parallel": 1, "parameters": {"temperature": 0}}
    weights = minilm.write_gguf(folder / "minilm.gguf")
    named = ["tiny", "smollm2:135m"]
    parameters = {"temperature": 0, "stop": [STOP]}
    model_file(folder, CHATS, **common | {"names": named, "system": SYSTEM, "parameters": parameters, "parallel": 4})
    model_file(folder, CLEVER, **common | {"template": TEMPLATE, "license": LICENSE})
    model_file(folder, EMBEDS, source=weights.as_uri(), contextLength=512)
    model_file(folder, COLD)


def write_extra_models(folder: Path) -> None:
    """Write a reranker of random weights, and the Model for chats with a projector of random weights."""
    model_file(folder, RANKS, source=write_qwen3(folder / "ranker.gguf").as_uri(), contextLength=256, parallel=1)
    projector = write_projector(folder / "mmproj.gguf").as_uri()
    parameters = {"temperature": 0, "num_predict": 8}
    model_file(folder, SEES, projector=projector, contextLength=512, parameters=parameters)
