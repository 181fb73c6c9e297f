"""``ollama launch``, which starts another program with the address of the server, and the command without a key."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.clients.command import Command
from tests.clients.served_models import CHATS
from tests.gateway.test_keys import key_file
from tests.support.gateway import MemoryDirectory, running_gateway

pytestmark = [pytest.mark.process, pytest.mark.clients]

PROGRAM = """#!{python}
import sys
import anthropic
[_, flag, model] = sys.argv
turn = {{"role": "user", "content": "hi"}}
answer = anthropic.Anthropic().messages.create(model=model, max_tokens=4, messages=[turn])
print(flag, answer.role, answer.model)
"""


def test_launch_starts_a_program_that_reaches_the_model(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = command.home / "bin"
    folder.mkdir()
    (folder / "claude").write_text(PROGRAM.format(python=sys.executable))
    (folder / "claude").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    said = command("launch", "claude", "--model", CHATS, "--yes")
    assert (said.status, said.out.split()) == (0, ["--model", "assistant", CHATS]), said


async def test_without_an_api_key_the_command_prints_the_reason(ollama_program: Path, tmp_path: Path) -> None:
    async with running_gateway(MemoryDirectory(), keys_file=key_file(tmp_path)) as gateway:
        command = Command(ollama_program, f"http://127.0.0.1:{gateway.port}", tmp_path)
        said = await asyncio.to_thread(command, "ls")
    assert (said.status, said.err) == (1, "Error: an API key is required: send 'Authorization: Bearer KEY'\n")
