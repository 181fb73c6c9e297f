"""Requests of the backend of Open WebUI 0.12.4 (PyPI) as data; each comment names the function that sends it.

Models, texts and limits of tokens are those of these tests.
"""

from __future__ import annotations

from tests.clients.open_webui import Request
from tests.clients.served_models import CHATS, CLEVER, EMBEDS, RANKS, SCHEMA, SEES, TOOL, WEATHER, WHERE
from tests.support.pictures import encoded, png

CITY = "What is the capital of France? Answer in one sentence."
QUESTION, PICTURE = "What is it?", encoded(png(80, 60, shade=40))
TEXTS = ["hello", "The quick brown fox"]
FEW = {"temperature": 0, "num_predict": 40}
FEWER = FEW | {"num_predict": 4}


def name(model: str) -> str:
    """Return the id of a model: the name in the list of models, with its tag."""
    return model if ":" in model else f"{model}:latest"


def said(text: str) -> list[dict[str, object]]:
    return [{"role": "user", "content": text}]


# https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/routers/ollama.py (verify_connection)
VERSION = Request("GET", "/api/version")
# https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/routers/ollama.py (get_all_models)
TAGS = Request("GET", "/api/tags")
# https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/routers/ollama.py (get_ollama_loaded_models)
LOADED = Request("GET", "/api/ps")


def show(model: str) -> Request:
    # https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/routers/ollama.py (show_model_info)
    return Request("POST", "/api/show", {"model": name(model)})


def unload(model: str) -> Request:
    # https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/routers/ollama.py (unload_model)
    return Request("POST", "/api/generate", {"model": name(model), "keep_alive": 0, "prompt": ""})


def pull(model: str) -> Request:
    # https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/routers/ollama.py (pull_model)
    return Request("POST", "/api/pull", {"name": model, "model": model, "insecure": True})


def create(model: str, base: str, system: str) -> Request:
    # https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/routers/ollama.py (create_model)
    return Request("POST", "/api/create", {"model": model, "from": base, "system": system})


def create_of_file(model: str, file: str, digest: str) -> Request:
    # https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/routers/ollama.py (upload_model)
    return Request("POST", "/api/create", {"model": model, "files": {file: digest}, "stream": False})


def copy(source: str, destination: str) -> Request:
    # https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/routers/ollama.py (copy_model)
    return Request("POST", "/api/copy", {"source": source, "destination": destination})


def delete(model: str) -> Request:
    # https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/routers/ollama.py (delete_model)
    return Request("DELETE", "/api/delete", {"model": model})


def chat(model: str, messages: object, *, stream: bool = True, **members: object) -> Request:
    # https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/utils/payload.py
    # (convert_payload_openai_to_ollama), sent by routers/ollama.py (generate_chat_completion)
    return Request(
        "POST", "/api/chat", {"model": name(model), "messages": messages, "stream": stream, "options": FEW, **members}
    )


# https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/utils/payload.py
# (apply_model_params_to_body_ollama): all parameters that the page offers
ALL_OPTIONS: dict[str, object] = FEWER | {
    "top_p": 0.9,
    "seed": 1,
    "mirostat": 0,
    "mirostat_eta": 0.1,
    "mirostat_tau": 5.0,
    "num_ctx": 2048,
    "num_batch": 512,
    "num_keep": 24,
    "repeat_last_n": 64,
    "top_k": 40,
    "min_p": 0.0,
    "repeat_penalty": 1.1,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "stop": ["</s>"],
    "num_gpu": 0,
    "use_mmap": True,
    "use_mlock": False,
    "num_thread": 2,
}
STREAM = chat(CHATS, said(CITY), options=FEW | {"num_ctx": 1024}, keep_alive="10m")
PARAMETERS = chat(CHATS, said(CITY), options=ALL_OPTIONS, keep_alive=600)
# https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/routers/tasks.py (generate_title)
TITLE = chat(CHATS, said("A title for a chat about France, in JSON"), stream=False, options={"num_predict": 8})
STRUCTURED = chat(CHATS, said(WEATHER), stream=False, format=SCHEMA)
THINKING = chat(CLEVER, said(WHERE), think=True)
TOOLS = chat(CLEVER, said(WEATHER), tools=[TOOL])


def with_result(identifier: str) -> Request:
    """Return the request after the call in the answer to ``TOOLS``, whose ``id`` is given."""
    # https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/utils/payload.py
    # (convert_messages_openai_to_ollama)
    call = {"index": 0, "id": identifier, "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}
    asked = {"role": "assistant", "tool_calls": [call], "content": ""}
    result = {"role": "tool", "content": "sunny", "tool_call_id": identifier}
    return chat(CLEVER, [*said(WEATHER), asked, result], think=False)


# https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/utils/payload.py
# (convert_messages_openai_to_ollama): base64 without the beginning of a data URL, and no content without a text
IMAGE = chat(SEES, [{"role": "user", "content": QUESTION, "images": [PICTURE]}], options=FEWER)
IMAGE_ALONE = chat(SEES, [{"role": "user", "images": [PICTURE]}], options=FEWER)
IMAGE_TO_OTHER = chat(CHATS, [{"role": "user", "content": QUESTION, "images": [PICTURE]}])
# https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/retrieval/utils.py
# (agenerate_ollama_batch_embeddings)
EMBED = Request("POST", "/api/embed", {"input": TEXTS, "model": EMBEDS, "truncate": True})
# https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/routers/ollama.py (embeddings)
EMBEDDING = Request("POST", "/api/embeddings", {"model": name(EMBEDS), "prompt": TEXTS[0]})

# https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/routers/openai.py (get_models_request)
MODELS = Request("GET", "/v1/models")


def completion(model: str, messages: object, **members: object) -> Request:
    # https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/routers/openai.py
    # (generate_chat_completion)
    body = {"model": name(model), "messages": messages, "temperature": 0, "max_tokens": 40, **members}
    return Request("POST", "/v1/chat/completions", body)


WITH_USAGE = {"stream": True, "stream_options": {"include_usage": True}}
COMPLETION_STREAM = completion(CHATS, said(CITY), **WITH_USAGE)
COMPLETION = completion(CHATS, said(CITY), stream=False)
COMPLETION_TOOLS = completion(CLEVER, said(WEATHER), **WITH_USAGE, tools=[TOOL])
_PARTS = [
    {"type": "text", "text": QUESTION},
    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}},
]
COMPLETION_IMAGE = completion(SEES, [{"role": "user", "content": _PARTS}], stream=False, max_tokens=4)
COMPLETION_TEXT = completion(SEES, said(QUESTION), stream=False, max_tokens=4)
# https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/routers/openai.py
# (convert_to_responses_payload), for a connection of the type "responses"
RESPONSES = Request(
    "POST",
    "/v1/responses",
    {
        "model": name(CHATS),
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": CITY}]}],
        "instructions": "You are a helpful assistant.",
        "stream": True,
        "temperature": 0,
        "max_output_tokens": 40,
    },
)
# https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/retrieval/utils.py
# (agenerate_openai_batch_embeddings)
EMBEDDINGS = Request("POST", "/v1/embeddings", {"input": TEXTS, "model": EMBEDS})
# https://github.com/open-webui/open-webui/blob/v0.12.4/backend/open_webui/retrieval/models/external.py
# (ExternalReranker.predict)
RERANK = Request("POST", "/v1/rerank", {"model": RANKS, "query": "q", "documents": TEXTS, "top_n": len(TEXTS)})
