"""The transcripts of docs/ollama-command.md, compared with what the real command prints."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from tests.clients.command import Command

pytestmark = [pytest.mark.process, pytest.mark.clients]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "ollama-command.md"
BLOCKS = re.findall(r"^```console\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_the_command_prints_the_transcript(command: Command, block: str) -> None:
    for transcript in re.split(r"^\$ ollama ", block, flags=re.MULTILINE)[1:]:
        words, *expected = transcript.splitlines()
        said = command(*shlex.split(words))
        printed = iter([" ".join(line.split()) for line in (said.out + said.err).splitlines()])
        for line in expected:
            pattern = re.escape(line).replace("…", ".*")
            assert any(re.fullmatch(pattern, found) for found in printed), (words, line, said)
