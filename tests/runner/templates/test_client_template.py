"""Templates of requests: rendered in the worker process, within limits that the kernel enforces."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from corral_server.runner.isolation.worker_process import WorkerProcess
from corral_server.runner.templates import client_template
from corral_server.runner.templates.client_template import ClientTemplate
from corral_server.runner.templates.templates import ChatTemplateError, Message

pytestmark = pytest.mark.process

USER: Message = {"role": "user", "content": "hi"}


@pytest.fixture(scope="module")
def worker() -> Iterator[WorkerProcess]:
    worker = WorkerProcess()
    yield worker
    worker.close()


Render = Callable[..., str]


@pytest.fixture
def render(worker: WorkerProcess) -> Render:
    def render(source: str, *messages: Message, **variables: object) -> str:
        template = ClientTemplate(source, {"bos": "<s>", "eos": "</s>"}, worker)
        return template.render(messages or (USER,), variables=variables)

    return render


@pytest.mark.parametrize(
    ("source", "prompt"),
    [
        ("{{ bos_token }}{% for m in messages %}{{ m.role }}:{{ m.content }}{% endfor %}", "<s>user:h\u00e9\ud800"),
        ("[{{ .System }}]{{ .Prompt }}", "[]h\u00e9\ud800"),
    ],
)
def test_both_languages_are_rendered(render: Render, source: str, prompt: str) -> None:
    assert render(source, {"role": "user", "content": "h\u00e9\ud800"}) == prompt


def test_a_prompt_and_a_suffix_are_inserted(worker: WorkerProcess) -> None:
    template = ClientTemplate("<{{ .Prompt }}|{{ .Suffix }}>", None, worker)
    assert template.insert("a", "b", {}) == "<a|b>"
    with pytest.raises(ChatTemplateError, match=r"no \.Suffix"):
        ClientTemplate("{{ .Prompt }}", None, worker).insert("a", "b", {})


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("{% if %}", "invalid at line 1"),
        ("{{ raise_exception('no') }}", "^no$"),
        ("{{ html .Prompt }}", "unsupported construct"),
        ("x" * 70_000, "at most 65536 are allowed"),
        ("{{a}}" * 9000, "more than 8000 words"),
        (
            "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            r"longer than 2 s|2 s of CPU",
        ),
        ("{{ messages.nothing.more }}", "the chat template failed"),
    ],
)
def test_every_error_is_one_of_the_client_and_names_the_reason(render: Render, source: str, reason: str) -> None:
    with pytest.raises(ChatTemplateError, match=reason) as caught:
        render(source)
    assert caught.value.is_client_error


def test_the_kernel_ends_a_template_that_occupies_the_interpreter(
    worker: WorkerProcess, render: Render, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A limit of 50 ms stands for an operation that no limit of the sandbox ends."""
    render("{{ bos_token }}")  # the worker has imported what it needs
    monkeypatch.setattr(client_template, "CPU_SECONDS", 0.05)
    with pytest.raises(ChatTemplateError, match=r"longer than 0\.05 s of CPU time"):
        render("{{ messages }}" * 3000)
    monkeypatch.undo()
    assert render("{{ bos_token }}") == "<s>"


def test_a_prompt_larger_than_the_limit_is_not_sent_to_the_worker(worker: WorkerProcess, render: Render) -> None:
    render("{{ bos_token }}")
    first = worker.process_id
    with pytest.raises(ChatTemplateError, match="needs too much memory"):
        render("{{ messages[0].content }}", {"role": "user", "content": "a" * 100_000_000})
    assert worker.process_id == first


def test_memory_over_the_limit_is_refused_and_the_next_request_is_served(render: Render) -> None:
    """Every copy is below the limits of the sandbox; a request can bring more than the worker may hold."""
    with pytest.raises(ChatTemplateError, match=r"needs too much memory: the memory limit of \d+ MiB"):
        render("{{ messages[0].content }}", {"role": "user", "content": "\U0001f600" * 5_000_000})
    assert render("{{ bos_token }}") == "<s>"
