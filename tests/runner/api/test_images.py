"""Images in requests of all APIs: their places in the prompt, their limits, and their errors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace

import httpx
import pytest

from corral_server.runner.images.limits import ImageLimits
from corral_server.runner.memory.budget import RequestMemory
from tests.support.fake_engine import FakeEngine
from tests.support.pictures import encoded, png
from tests.support.runner_server import ServedRunner, runner_state, serving, serving_state

PICTURE, OTHER = png(shade=1), png(shade=2)
URL = f"data:image/png;base64,{encoded(PICTURE)}"

GENERATE, CHAT, COMPLETIONS, RESPONSES, MESSAGES = (
    "/api/generate",
    "/api/chat",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
)


def request(path: str, data: str) -> dict[str, object]:
    """Return a request of the API with one image, base64, and a text after it."""
    blocks: Mapping[str, object] = {
        COMPLETIONS: [{"type": "image_url", "image_url": {"url": f"data:;base64,{data}"}}, text_part("text")],
        RESPONSES: [{"type": "input_image", "image_url": f"data:image/png;base64,{data}"}, text_part("input_text")],
        MESSAGES: [{"type": "image", "source": {"type": "base64", "data": data}}, text_part("text")],
    }
    message = {"role": "user", "content": blocks.get(path, "What is it?")}
    if path == GENERATE:
        return {"model": "tiny", "prompt": "What is it?", "images": [data]}
    if path == CHAT:
        message["images"] = [data]
    if path == RESPONSES:
        return {"model": "tiny", "input": [message]}
    return {"model": "tiny", "messages": [message], "max_tokens": 9}


def text_part(kind: str) -> dict[str, str]:
    return {"type": kind, "text": "What is it?"}


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(accepts_images=True)


@pytest.fixture
def runner(engine: FakeEngine) -> Iterator[ServedRunner]:
    with serving(engine) as runner:
        yield runner


def message_of(response: httpx.Response) -> str:
    error = response.json()["error"]
    return str(error if isinstance(error, str) else error["message"])


@pytest.mark.parametrize("path", [GENERATE, CHAT, COMPLETIONS, RESPONSES, MESSAGES])
def test_an_image_is_in_the_prompt_before_the_text(path: str, runner: ServedRunner, engine: FakeEngine) -> None:
    assert runner.post(path, request(path, encoded(PICTURE))).status_code == 200
    (image,) = engine.tasks[-1].images
    assert image.sha256 == hashlib.sha256(PICTURE).hexdigest()
    assert engine.prompt_text() == "[user]()What is it?[assistant]"
    assert set(image.cells) <= set(engine.tasks[-1].prompt)


@pytest.mark.parametrize("path", [GENERATE, CHAT, COMPLETIONS, RESPONSES, MESSAGES])
def test_a_model_without_projector_refuses_images(path: str) -> None:
    with serving(FakeEngine()) as runner:
        response = runner.post(path, request(path, encoded(PICTURE)))
    assert (response.status_code, message_of(response)) == (400, '"tiny" does not support images')


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (GENERATE, "illegal base64 data at input byte 2"),
        (CHAT, "illegal base64 data at input byte 2"),
        (COMPLETIONS, "invalid image input"),
        (RESPONSES, "invalid image input"),
        (MESSAGES, "invalid base64 image data: illegal base64 data at input byte 2"),
    ],
)
def test_what_is_not_base64_is_refused_with_the_text_of_ollama(path: str, text: str, runner: ServedRunner) -> None:
    response = runner.post(path, request(path, "aG!k"))
    assert (response.status_code, message_of(response)) == (400, text)


@pytest.mark.parametrize("path", [COMPLETIONS, RESPONSES])
def test_the_url_of_an_image_elsewhere_is_refused(path: str, runner: ServedRunner) -> None:
    part = {"type": "image_url", "image_url": "https://a/b.png"}
    content = [part if path == COMPLETIONS else part | {"type": "input_image"}]
    name = "messages" if path == COMPLETIONS else "input"
    response = runner.post(path, {"model": "tiny", name: [{"role": "user", "content": content}]})
    text = "image URLs are not currently supported, please use base64 encoded data instead"
    assert (response.status_code, message_of(response)) == (400, text)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (encoded(b"hello"), "not an image"),
        (encoded(png(declared=(50_000, 50_000))), "50000 x 50000 pixels"),
        (encoded(png() + b"damaged"), "could not be decoded"),
        (encoded(bytes(5000)), "5000 bytes, at most 4096"),
    ],
)
def test_an_image_that_cannot_be_used_is_refused_with_what_to_do(data: str, text: str, engine: FakeEngine) -> None:
    state = runner_state(engine)
    state.set_loaded(replace(state.require_loaded(), image_limits=ImageLimits(bytes=4096)))
    with serving_state(state) as runner:
        response = runner.post(CHAT, request(CHAT, data))
    assert response.status_code == 400
    assert text in message_of(response)
    assert not engine.tasks


def test_more_images_than_the_limit_are_refused(engine: FakeEngine) -> None:
    state = runner_state(engine)
    state.set_loaded(replace(state.require_loaded(), image_limits=ImageLimits(count=2)))
    messages = [{"role": "user", "content": "a", "images": [encoded()] * 2} for _ in range(2)]
    with serving_state(state) as runner:
        assert "4 images, at most 2" in message_of(runner.post(CHAT, {"model": "tiny", "messages": messages}))


def test_an_image_without_memory_for_its_pixels_is_refused(engine: FakeEngine) -> None:
    state = runner_state(engine)
    state.request_memory = RequestMemory(8 << 20)
    with serving_state(state) as runner:
        response = runner.post(CHAT, request(CHAT, encoded(png(declared=(4000, 4000)))))
    assert response.status_code == 413
    assert state.request_memory.used == 0


def test_images_of_an_item_that_are_no_strings_are_refused(runner: ServedRunner) -> None:
    response = runner.post(GENERATE, {"model": "tiny", "prompt": "a", "images": [1]})
    text = "json: cannot unmarshal number into Go struct field GenerateRequest.images of type api.ImageData"
    assert (response.status_code, message_of(response)) == (400, text)


def test_several_images_are_in_the_order_of_the_messages(runner: ServedRunner, engine: FakeEngine) -> None:
    messages = [
        {"role": "user", "content": "a [img] b", "images": [encoded(PICTURE), encoded(OTHER)]},
        {"role": "assistant", "content": "c"},
        {"role": "user", "content": "d", "images": [encoded(PICTURE)]},
    ]
    assert runner.post(CHAT, {"model": "tiny", "messages": messages}).status_code == 200
    assert engine.prompt_text() == "[user]()a () b[assistant]c[user]()d[assistant]"
    digests = [hashlib.sha256(data).hexdigest() for data in (OTHER, PICTURE, PICTURE)]
    assert [image.sha256 for image in engine.tasks[-1].images] == digests


def test_the_parts_of_a_message_with_an_image_are_one_message(runner: ServedRunner, engine: FakeEngine) -> None:
    image = {"type": "image_url", "image_url": {"url": URL}}
    parts = [{"type": "text", "text": text} for text in ("a", "b", "c")]
    content = [parts[0], parts[1], image, parts[2]]
    assert runner.post(COMPLETIONS, {"model": "tiny", "messages": [{"role": "user", "content": content}]}).is_success
    assert engine.prompt_text() == "[user]a\nb()c[assistant]"


def test_an_image_in_the_result_of_a_tool_is_in_the_prompt(runner: ServedRunner, engine: FakeEngine) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": encoded(PICTURE)}}
    result = {"type": "tool_result", "tool_use_id": "1", "content": [image, {"type": "text", "text": "seen"}]}
    body = {"model": "tiny", "max_tokens": 9, "messages": [{"role": "user", "content": [result]}]}
    assert runner.post(MESSAGES, body).status_code == 200
    assert engine.prompt_text() == "[tool]()seen[assistant]"


def test_tokens_are_counted_with_those_of_images(runner: ServedRunner, engine: FakeEngine) -> None:
    body = request(MESSAGES, encoded(PICTURE))
    counted = runner.post("/v1/messages/count_tokens", body).json()["input_tokens"]
    assert runner.post(MESSAGES, body).status_code == 200
    assert counted == len(engine.tasks[-1].prompt)


def test_a_raw_prompt_has_its_images_before_the_text(runner: ServedRunner, engine: FakeEngine) -> None:
    body = {"model": "tiny", "prompt": "a", "raw": True, "images": [encoded(PICTURE)]}
    assert runner.post(GENERATE, body).status_code == 200
    assert engine.prompt_text() == "()a"


def test_the_context_of_a_response_has_no_cells_of_images(runner: ServedRunner, engine: FakeEngine) -> None:
    body = runner.post(GENERATE, request(GENERATE, encoded(PICTURE)) | {"stream": False}).json()
    assert min(body["context"]) >= 0


def test_a_rendered_prompt_shows_the_tags_of_ollama(runner: ServedRunner) -> None:
    body = request(CHAT, encoded(PICTURE)) | {"_debug_render_only": True}
    shown = runner.post(CHAT, body).json()["_debug_info"]["rendered_template"]
    assert shown == "<s>[user][img-0]What is it?[assistant]"


def test_old_messages_are_dropped_with_their_images(engine: FakeEngine) -> None:
    engine.context_length = 60
    messages = [
        {"role": "user", "content": "a" * 40, "images": [encoded(PICTURE)]},
        {"role": "user", "content": "b", "images": [encoded(OTHER)]},
    ]
    with serving(engine) as runner:
        assert runner.post(CHAT, {"model": "tiny", "messages": messages}).status_code == 200
    assert [image.sha256 for image in engine.tasks[-1].images] == [hashlib.sha256(OTHER).hexdigest()]


def test_a_template_without_a_place_for_an_image_is_an_error(engine: FakeEngine) -> None:
    with serving(engine, template="{% for m in messages %}{{ m.role }}{% endfor %}") as runner:
        response = runner.post(CHAT, request(CHAT, encoded(PICTURE)))
    assert response.status_code == 400
    assert "no place for an image" in message_of(response)


def test_a_template_of_parts_gets_the_text_with_its_image(engine: FakeEngine) -> None:
    """As SmolVLM's, which reads nothing of a text that is not in a list of parts."""
    template = (
        "{% for m in messages %}{{ m.role }}:{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}"
        "{% endif %}{% endfor %}{% endfor %}"
    )
    with serving(engine, template=template) as runner:
        assert runner.post(CHAT, request(CHAT, encoded(PICTURE))).status_code == 200
    assert engine.prompt_text() == "user:()What is it?"
