"""Images through ``corral serve``, with the small real model and a projector of random weights.

What the model sees is noise, but the same picture gives the same text, and the counts are those of a real projector.
"""

from __future__ import annotations

from typing import Any

import anthropic
import httpx
import ollama
import openai
import pytest

from tests.clients.served_models import SEES
from tests.local.served import START, Served
from tests.support.pictures import encoded, png
from tests.support.projectors import ROWS, require_mtmd

pytestmark = pytest.mark.process

QUESTION = "What is it?"
PICTURE = png(80, 60, shade=40)
URL = f"data:image/png;base64,{encoded(PICTURE)}"


@pytest.fixture
def served(extra: Served) -> Served:
    require_mtmd()
    return extra


def test_show_has_the_capability_and_the_projector(served: Served) -> None:
    shown = served.client.show(SEES)
    assert shown.capabilities == ["completion", "vision"]
    assert shown.details is not None
    assert shown.details.families == ["llama", "clip"]
    raw = httpx.post(f"{served.url}/api/show", json={"model": SEES}, timeout=START).json()
    assert raw["projector_info"]["clip.projector_type"] == "mlp"


def test_an_image_takes_its_rows_of_the_prompt(served: Served) -> None:
    plain, seen = (served.client.generate(SEES, QUESTION, images=images) for images in (None, [PICTURE]))
    assert seen.prompt_eval_count == (plain.prompt_eval_count or 0) + ROWS
    assert seen.response != plain.response


def test_the_context_has_the_minimum_length_for_images(served: Served) -> None:
    served.client.generate(SEES, QUESTION)
    loaded = {model.model: model.context_length for model in served.client.ps().models}
    assert loaded["seer:latest"] == 2048


def test_all_apis_give_the_same_answer(served: Served) -> None:
    message = {"role": "user", "content": QUESTION, "images": [PICTURE]}
    answers = [
        served.client.generate(SEES, QUESTION, images=[PICTURE]).response,
        served.client.chat(SEES, [message]).message.content,
        _completion(served, {"type": "image_url", "image_url": {"url": URL}}),
        _response(served),
        _message(served),
    ]
    assert answers[0]
    assert set(answers) == {answers[0]}


def test_several_images_of_a_chat(served: Served) -> None:
    first = ollama.Message(role="user", content=QUESTION, images=[ollama.Image(value=PICTURE)])
    other = ollama.Message(role="user", content="And this?", images=[ollama.Image(value=png(60, 80, shade=220))])
    one = served.client.chat(SEES, [first])
    two = served.client.chat(SEES, [first, one.message, other])
    assert (two.prompt_eval_count or 0) > (one.prompt_eval_count or 0) + ROWS


def test_a_damaged_image_is_refused_and_the_runner_goes_on(served: Served) -> None:
    with pytest.raises(ollama.ResponseError, match="image") as caught:
        served.client.generate(SEES, QUESTION, images=[PICTURE[:60]])
    assert caught.value.status_code == 400
    assert served.client.generate(SEES, QUESTION, images=[PICTURE]).response


def test_the_url_of_an_image_elsewhere_is_refused(served: Served) -> None:
    with pytest.raises(openai.BadRequestError, match="image URLs are not currently supported"):
        _completion(served, {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}})


def _openai(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=START)


def _completion(served: Served, image: object) -> str | None:
    content = [image, {"type": "text", "text": QUESTION}]
    with _openai(served) as client:
        messages: Any = [{"role": "user", "content": content}]
        answer = client.chat.completions.create(model=SEES, messages=messages, temperature=0)
    return answer.choices[0].message.content


def _response(served: Served) -> str:
    content = [{"type": "input_image", "image_url": URL}, {"type": "input_text", "text": QUESTION}]
    with _openai(served) as client:
        asked: Any = [{"role": "user", "content": content}]
        return client.responses.create(model=SEES, input=asked, temperature=0, max_output_tokens=8).output_text


def _message(served: Served) -> str:
    source = {"type": "base64", "media_type": "image/png", "data": encoded(PICTURE)}
    content = [{"type": "image", "source": source}, {"type": "text", "text": QUESTION}]
    with anthropic.Anthropic(base_url=served.url, api_key="none", max_retries=0, timeout=START) as client:
        messages: Any = [{"role": "user", "content": content}]
        answer = client.messages.create(model=SEES, messages=messages, max_tokens=8)
    return "".join(block.text for block in answer.content if block.type == "text")
