"""Examples and catalogue: every Model is valid, no two have the same name, and the page lists the catalogue."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from corral_core.model.name_index import lost_names
from corral_core.model.resource import parse_model
from corral_core.sources.uri import parse_source
from corral_server.local.cli.validate import validate
from tests.model_files import CATALOGUE, EXAMPLES, ROOT, models

PAGE = ROOT / "docs/how-to/model-catalogue.md"


@pytest.mark.parametrize("path", [*CATALOGUE, *EXAMPLES], ids=lambda path: path.stem)
def test_the_models_of_a_file_are_valid(path: Path) -> None:
    for document in models(path):
        parse_source(parse_model(document).spec.source)


def test_corral_validate_accepts_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    assert validate([ROOT / "charts/models/catalogue"]) == 0
    assert capsys.readouterr().out.count(": valid") == len(CATALOGUE) >= 25


def test_examples_and_catalogue_can_be_applied_together() -> None:
    """The Model of the demo has the names of the catalogue's, because it is the same model from another place."""
    files = [*CATALOGUE, *(path for path in EXAMPLES if path.name != "smollm2.yaml")]
    found = [parse_model(document) for path in files for document in models(path)]
    assert lost_names(found) == {}
    assert len({model.key for model in found}) == len(found)


@pytest.mark.parametrize("path", CATALOGUE, ids=lambda path: path.stem)
def test_a_file_of_the_catalogue_is_one_model_of_its_name_with_its_size_and_license(path: Path) -> None:
    [document] = models(path)
    model = parse_model(document)
    head = re.match(r"(?:#.*\n)+", path.read_text())
    assert model.name == path.stem
    assert model.spec.names
    assert head is not None
    assert re.search(r"Download about [\d.]+\sGB\.", head[0].replace("\n# ", " "))
    assert re.search(r"License: \S+", head[0])


def test_every_setting_of_the_catalogue_has_its_reason() -> None:
    """A comment stands above each field but source and names; two fields in a row may share one."""
    missing = []
    for path in CATALOGUE:
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            field = re.match(r"  (\w+):", line)
            if field and field[1] not in ("name", "source", "names") and not _explained(lines[:number]):
                missing.append(f"{path.name}: {line.strip()}")
    assert missing == []


def _explained(before: list[str]) -> bool:
    return before[-1].startswith("  #") or before[-2].startswith("  #")


def test_the_page_lists_the_catalogue() -> None:
    listed = re.findall(r"^\| `([\w.-]+)` \| `(\S+)` \|", PAGE.read_text(), re.MULTILINE)
    assert listed == [(path.stem, parse_model(models(path)[0]).spec.source) for path in CATALOGUE]
