"""The collector of snippets, and what is checked of every snippet: Models, command lines and shell syntax."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from corral_core.model.resource import parse_model
from corral_kubectl.main import parser as plugin_parser
from corral_server.local.cli.parser import build_parser
from tests.docs import snippets
from tests.docs.snippets import SHELL, Block, Command, Manifest

PAGE = """\
# Title

```python
print(1)
```

## Start `corral`

1. First:

    ```sh
    A=1 corral serve x.yaml --port 0 > log & # a comment isn't a word
    kubectl apply -f - <<MODEL
    kind: Model
    corral pull not-a-command
    MODEL
    curl -d '{"a":
      1}' http://x/#y | jq . && .venv/bin/corral \\
        ps
    ```

Inline `corral run smollm2`.

```console
$ corral list
corral pull output
```
"""


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(snippets, "ROOT", tmp_path)
    monkeypatch.setattr(snippets, "DOCS", tmp_path / "docs")
    (tmp_path / "README.md").write_text(PAGE)
    return tmp_path / "README.md"


def test_blocks_are_found_by_language_and_by_the_heading_above_them(page: Path) -> None:
    assert [(block.language, block.heading, block.line) for block in snippets.blocks(page)] == [
        ("python", "Title", 3),
        ("sh", "Start `corral`", 11),
        ("console", "Start `corral`", 24),
    ]
    assert [block.text for block in snippets.blocks(page, language="python", heading="Title")] == ["print(1)\n"]
    assert snippets.blocks(page, language="python", heading="Start") == ()


def test_commands_are_split_into_words_without_assignments_redirections_and_here_documents(page: Path) -> None:
    [block] = snippets.blocks(page, language="sh")
    assert [(command.line, command.words) for command in snippets.shell_commands(block)] == [
        (12, ("corral", "serve", "x.yaml", "--port", "0")),
        (13, ("kubectl", "apply", "-f", "-")),
        (17, ("curl", "-d", '{"a":\n  1}', "http://x/#y")),
        (17, ("jq", ".")),
        (17, (".venv/bin/corral", "ps")),
    ]


def test_commands_of_a_program_are_found_in_blocks_and_in_inline_code(page: Path) -> None:
    assert [command.words[1] for command in snippets.commands("corral")] == ["serve", "ps", "list", "run"]


def test_objects_are_found_in_here_documents(page: Path) -> None:
    page.write_text("```sh\nkubectl apply -f - <<END\napiVersion: v1\nkind: Secret\nEND\n```\n")
    assert [item.document for item in snippets.manifests("Secret")] == [{"apiVersion": "v1", "kind": "Secret"}]


def _exit_code(arguments: list[str]) -> object:
    """Return 2 for a wrong command line of ``corral``, 0 for any other; nothing is run."""
    try:
        build_parser().parse_args(arguments)
    except SystemExit as exited:  # also of --help and --version
        return exited.code
    return 0


@pytest.mark.parametrize("manifest", snippets.manifests("Model"), ids=str)
def test_every_model_on_a_page_is_valid(manifest: Manifest) -> None:
    assert parse_model(manifest.document).spec.source


@pytest.mark.parametrize("command", snippets.commands("corral"), ids=str)
def test_every_command_line_of_corral_parses(command: Command) -> None:
    named_only = command.inline and len(command.words) == 2  # such as `corral pull`, without its arguments
    arguments = [*command.words[1:], *(["--help"] if named_only else [])]
    assert _exit_code(arguments) == 0


@pytest.mark.parametrize(
    "command", [one for one in snippets.commands("kubectl") if one.words[1] == "corral" and not one.inline], ids=str
)
def test_every_command_line_of_the_kubectl_plugin_parses(command: Command) -> None:
    assert plugin_parser().parse_args(command.words[2:])


@pytest.mark.parametrize("block", snippets.all_blocks(SHELL), ids=str)
def test_every_shell_block_is_valid_shell(block: Block) -> None:
    done = subprocess.run(
        ["bash", "-n"], input=snippets.script(block), capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
