"""A chat in terms that all APIs share, from its checks to the work that answers it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from corral_server.runner import capabilities
from corral_server.runner.answer import Work, Writer
from corral_server.runner.common import PROMPT_END, Common, task_of, think_variables
from corral_server.runner.formats.calls import Wanted
from corral_server.runner.generation import Task
from corral_server.runner.options import Options
from corral_server.runner.prompt import ChatPrompt, chat_prompt
from corral_server.runner.reading import Reading
from corral_server.runner.state import Loaded
from corral_server.runner.templates import Message
from corral_server.runner.tools import AUTO, Choice, Tool, allowed


@dataclass(frozen=True, slots=True)
class Chat:
    """``messages`` has at least one; ``tools`` are those that may be called and ``choice`` says whether one must be."""

    common: Common
    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    choice: Choice = AUTO

    @property
    def offered(self) -> Sequence[Tool]:
        """The tools that the model is told of."""
        return allowed(self.tools, self.choice)


def check_chat(chat: Chat, loaded: Loaded) -> None:
    """Refuses what the model cannot do, in Ollama's order and with its texts. Raises ApiError 400."""
    model = chat.common.model
    if chat.tools:
        capabilities.check_tools(loaded.facts, model)
    capabilities.check_completion(loaded.facts, model, "chat")
    capabilities.check_think(chat.common.think, model, loaded.facts)
    if any(message.get("images") for message in chat.messages):
        capabilities.refuse_images(model)


def chat_work(path: str, started: int, chat: Chat, *, loaded: Loaded, writer: Writer) -> Work:
    """Raises ApiError for options of a wrong type; everything slower happens in the work itself."""
    options = loaded.options.updated(chat.common.options)

    def prepare(loaded: Loaded) -> Task:
        return _task(loaded, chat, options)

    thinks = capabilities.thinks(chat.common.think, loaded.facts)
    reading = Reading(loaded.template.source, thinks=thinks, tools=chat.offered)
    return Work(path, started, chat.common.keep_alive, chat.common.stream, prepare, writer, reading)


def prompt_of(loaded: Loaded, chat: Chat) -> ChatPrompt:
    """The prompt as text and tokens. Raises TemplateFailed."""
    messages = chat.messages
    if loaded.system and messages[0].get("role") != "system":
        messages = [{"role": "system", "content": loaded.system}, *messages]
    thinks = capabilities.thinks(chat.common.think, loaded.facts)
    variables = think_variables(chat.common.think, thinks=thinks)
    return chat_prompt(
        loaded.engine,
        loaded.template,
        messages,
        truncate=chat.common.truncate,
        variables=variables,
        tools=chat.offered,
    )


def _task(loaded: Loaded, chat: Chat, options: Options) -> Task:
    prompt = prompt_of(loaded, chat)
    thinks = capabilities.thinks(chat.common.think, loaded.facts)
    wanted = Wanted(thinks, chat.offered, prompt.text[-PROMPT_END:])
    must_call = chat.choice.must_call
    return task_of(loaded, prompt.tokens, chat.common, options=options, wanted=wanted, must_call=must_call)
