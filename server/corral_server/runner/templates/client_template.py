"""Chat template of a request, rendered in the worker process.

The limits of every template hold there too and give the better error. The worker adds what they cannot: nothing that a
template makes jinja2 or Python do occupies the runner's interpreter or memory, or lasts longer than its CPU time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from corral_server.runner.isolation.worker_process import (
    WorkerFailed,
    WorkerOutOfMemory,
    WorkerProcess,
    WorkerTimeout,
    shared_worker,
)
from corral_server.runner.templates.limits import TemplateLimit, check_characters
from corral_server.runner.templates.templates import ChatTemplate, ChatTemplateError, Message

CPU_SECONDS = 2.0
"""CPU time to compile and render one. Published templates take 0.2 s with a short chat."""


class ClientTemplate:
    """A template that came with a request. All errors are errors of the client."""

    def __init__(
        self, source: str, special_tokens: Mapping[str, str] | None = None, worker: WorkerProcess | None = None
    ) -> None:
        """``special_tokens`` as ``ChatTemplate.special_tokens``."""
        self._template = {"source": source, **(special_tokens or {"bos": "", "eos": ""})}
        self._worker = worker or shared_worker()

    def render(self, messages: Sequence[Message], *, variables: Mapping[str, object]) -> str:
        """Return the prompt. Blocks until the worker has rendered it. Raises ChatTemplateError."""
        return self._call(messages=list(messages), variables=variables)

    def insert(self, prompt: str, suffix: str, variables: Mapping[str, object]) -> str:
        """As ``ChatTemplate.insert``."""
        return self._call(prompt=prompt, suffix=suffix, variables=variables)

    def _call(self, **arguments: object) -> str:
        try:
            check_characters(self._template["source"])
            reply = self._worker.call("template", {**self._template, **arguments}, seconds=CPU_SECONDS)
        except TemplateLimit as error:
            raise ChatTemplateError(str(error), is_client_error=True) from error
        except WorkerTimeout:
            raise _refused(f"takes longer than {CPU_SECONDS:g} s of CPU time") from None
        except WorkerOutOfMemory as error:
            raise _refused(f"needs too much memory: {error}") from None
        except WorkerFailed as error:
            raise _refused(f"could not be rendered: {error}") from None
        text, error_text = reply[1:].decode("utf-8", "surrogatepass"), reply[:1] != b"="
        if error_text:
            raise ChatTemplateError(text, is_client_error=True)
        return text


def perform(arguments: Mapping[str, object]) -> bytes:
    """Compile and render a template; the operation ``template`` of the worker process.

    Returns ``=`` and the prompt, or ``!`` and the text of the error.
    """
    try:
        return b"=" + _render(arguments).encode("utf-8", "surrogatepass")
    except ChatTemplateError as error:
        return b"!" + str(error)[:2000].encode("utf-8", "surrogatepass")


def _render(arguments: Mapping[str, object]) -> str:
    texts = {name: value for name, value in arguments.items() if isinstance(value, str)}
    messages, variables = arguments.get("messages"), arguments["variables"]
    assert isinstance(variables, dict), "the runner sends a mapping"
    template = ChatTemplate(texts["source"], bos=texts["bos"], eos=texts["eos"])
    if isinstance(messages, list):
        return template.render(messages, variables=variables)
    return template.insert(texts["prompt"], texts["suffix"], variables)


def _refused(reason: str) -> ChatTemplateError:
    return ChatTemplateError(f"the template of the request {reason}", is_client_error=True)
