"""The web page of the gateway: its lint and types, its functions, and its behaviour in Chromium.

The tests themselves are in ``ui/tests/``, in TypeScript; Node.js runs them here in three processes. A failure has the
end of their output.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import ui
from tests.clients.served_models import CHATS, CLEVER, TEMPLATE
from tests.local.served import model_file, serving
from tests.ui.conftest import Workspace

pytestmark = [pytest.mark.process, pytest.mark.clients]

NODE_TEST = ("node", "--test", "--test-reporter=spec", "--test-timeout=240000")
"""The failures are at the end of this reporter's output. The limit, in milliseconds, is for a file of tests as well."""


def test_the_sources_of_the_page_are_formatted_and_have_no_lint_or_type_errors(sources: Workspace) -> None:
    sources.run("biome", "ci", "--error-on-warnings", ".")
    sources.run("tsc", "--noEmit")


def test_the_functions_of_the_page(compiled: Workspace) -> None:
    compiled.run(*NODE_TEST, *_tests(compiled, "unit"))


def test_the_page_in_chromium_shows_every_state_of_a_gateway(compiled: Workspace, chromium: str) -> None:
    settings = {"CHROMIUM": chromium, "PAGE": str(ui.TARGET)}
    compiled.run(*NODE_TEST, "compiled/tests/browser/scripted.test.js", **settings)


def test_the_page_in_chromium_uses_corral_serve(compiled: Workspace, chromium: str, tmp_path: Path) -> None:
    model_file(tmp_path, CHATS, parallel=1, parameters={"temperature": 0, "num_predict": 48})
    model_file(tmp_path, CLEVER, parallel=1, parameters={"temperature": 0}, template=TEMPLATE)
    with serving(tmp_path, tmp_path) as served:
        settings = {"CHROMIUM": chromium, "CORRAL_URL": served.url}
        compiled.run(*NODE_TEST, "compiled/tests/browser/served.test.js", **settings)


def _tests(workspace: Workspace, folder: str) -> list[str]:
    found = sorted((workspace.folder / "compiled/tests" / folder).glob("*.test.js"))
    assert found
    return [str(path) for path in found]
