"""Snippets of the documentation for tests: fenced blocks by language and heading, and the commands in them.

A test that runs a snippet takes it from its page, so the page and what was tested are the same text:

    [block] = blocks(DOCS / "clients/openai.md", language="python", heading="Chat")

Pages are parsed as CommonMark (https://spec.commonmark.org/), with tables.
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SHELL = ("sh", "bash", "console")
"""Languages of shell blocks. In a ``console`` block a line with a command begins with ``$``, the others are output."""

_MARKDOWN = MarkdownIt("commonmark").enable("table")
_COMMENT = re.compile(r"(^|\s+)#(\s.*)?$")
_DESCRIPTOR = re.compile(r"(?<=\s)\d(?=[<>])")
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language (empty without one), its text, the heading above it, and where it is."""

    page: Path
    line: int
    heading: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


@dataclass(frozen=True)
class Command:
    """A simple command of a shell block or of inline code, as words, without assignments and redirections."""

    page: Path
    line: int
    words: tuple[str, ...]
    inline: bool = False

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}: {' '.join(self.words)}"


@dataclass(frozen=True)
class Manifest:
    """A Kubernetes object in a snippet."""

    block: Block
    document: Mapping[str, object]

    def __str__(self) -> str:
        return str(self.block)


def pages() -> list[Path]:
    """Return the README and every page of the documentation."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path, *, language: str | Sequence[str] | None = None, heading: str | None = None) -> tuple[Block, ...]:
    """Return the fenced blocks of a page, in order.

    ``language`` is one language or several; ``heading`` is the text of the nearest heading above a block, of any level,
    with its Markdown.
    """
    wanted = (language,) if isinstance(language, str) else language
    return tuple(
        block
        for block in _blocks(page)
        if (wanted is None or block.language in wanted) and (heading is None or block.heading == heading)
    )


def all_blocks(language: str | Sequence[str]) -> list[Block]:
    """Return the fenced blocks of a language, or of several, on all pages."""
    return [block for page in pages() for block in blocks(page, language=language)]


def commands(program: str) -> list[Command]:
    """Return every command on all pages that runs ``program``, in shell blocks and in inline code.

    Inline code counts if it begins with the program and a space. A path is cut off: ``.venv/bin/corral`` is ``corral``.
    """
    found = [command for block in all_blocks(SHELL) for command in shell_commands(block)]
    found += [
        Command(page, line, tuple(words), inline=True)
        for page in pages()
        for line, text in inline_code(page)
        for words in _split(text)
    ]
    return [command for command in found if Path(command.words[0]).name == program and len(command.words) > 1]


def shell_commands(block: Block) -> Iterator[Command]:
    """Yield the simple commands of a shell block; the text of here-documents is left out."""
    for offset, line in _logical_lines(script(block)):
        for words in _split(line):
            yield Command(block.page, block.line + 1 + offset, tuple(words))


def script(block: Block) -> str:
    """Return the shell script of a block: of a ``console`` block, only the lines with a command."""
    if block.language != "console":
        return block.text
    return "".join(f"{line[2:]}\n" for line in block.text.splitlines() if line.startswith("$ "))


def manifests(kind: str | None = None) -> list[Manifest]:
    """Return every object, of a kind, in the ``yaml`` blocks and the here-documents of shell blocks of all pages."""
    texts = [(block, block.text) for block in all_blocks("yaml")]
    texts += [(block, text) for block in all_blocks(SHELL) for text in _here_documents(block)]
    return [
        Manifest(block, item)
        for block, text in texts
        if "apiVersion:" in text
        for item in yaml.safe_load_all(text)
        if isinstance(item, dict) and "apiVersion" in item and kind in (None, item.get("kind"))
    ]


def _here_documents(block: Block) -> Iterator[str]:
    lines = iter(block.text.splitlines())
    for line in lines:
        if here := _HEREDOC.search(line):
            yield textwrap.dedent("".join(f"{inner}\n" for inner in iter(lambda: next(lines), here[1])))


def inline_code(page: Path) -> Iterator[tuple[int, str]]:
    """Yield the line, from 1, and the text of each span of inline code."""
    for token in _MARKDOWN.parse(page.read_text("utf-8")):
        for child in token.children or ():
            if child.type == "code_inline":
                yield (token.map or [0])[0] + 1, child.content


def values_blocks(keys: Collection[str]) -> list[Block]:
    """Return the ``yaml`` blocks of all pages that are values of a chart whose top-level keys are ``keys``."""
    found = []
    for block in all_blocks("yaml"):
        values = None if "apiVersion:" in block.text else yaml.safe_load(block.text)
        if isinstance(values, dict) and values.keys() <= set(keys):
            found.append(block)
    return found


def file_block(page: Path, name: str) -> Block | None:
    """Return the block of a page that is the file ``name``: its first line is the comment ``# name``."""
    return next((block for block in blocks(page) if block.text.startswith(f"# {name}\n")), None)


def _blocks(page: Path) -> Iterator[Block]:
    heading = ""
    tokens: list[Token] = _MARKDOWN.parse(page.read_text("utf-8"))
    for before, token in zip([None, *tokens], tokens, strict=False):
        if before is not None and before.type == "heading_open":
            heading = token.content
        elif token.type == "fence":
            language = token.info.split()[0] if token.info.split() else ""
            yield Block(page, (token.map or [0])[0] + 1, heading, language, token.content)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield the offset and the text of each command line: continued lines are joined, here-documents are left out."""
    lines = iter(enumerate(text.splitlines()))
    for start, line in lines:
        whole = _COMMENT.sub("", line)
        while whole.endswith("\\") or _open_quote(whole):
            _, following = next(lines, (0, None))
            if following is None:
                break
            whole = whole.removesuffix("\\") + ("\n" if _open_quote(whole) else "") + following
        yield start, whole
        if here := _HEREDOC.search(whole):
            for _, inner in lines:
                if inner.strip() == here[1]:
                    break


def _open_quote(line: str) -> bool:
    try:
        shlex.split(line)
    except ValueError:
        return not line.endswith("\\")
    return False


def _split(line: str) -> Iterator[list[str]]:
    """Yield the words of each simple command of a line; nothing if a quote is not closed."""
    lexer = shlex.shlex(_DESCRIPTOR.sub("", line), posix=True, punctuation_chars="|&;<>()")
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    try:
        tokens = list(lexer)
    except ValueError:
        return
    skip = False
    for token in [*tokens, ";"]:
        if skip:  # the target of a redirection
            skip = False
        elif set(token) <= set("<>&") and set(token) & set("<>"):
            skip = True
        elif set(token) <= set("|&;()") or (words and token == "!"):
            if words:
                yield words
            words = []
        elif words or not re.match(r"[A-Za-z_]\w*=", token):
            words.append(token)
