"""``corral apply`` and ``corral delete``: the folder of the local server, and kubectl's words."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from corral_core.model.resource import load_models
from corral_server.local.cli.apply import CannotApply, apply, delete
from tests.local.parts import document


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"CORRAL_MODELS_FOLDER": str(tmp_path / "models"), "CORRAL_STATE_FOLDER": str(tmp_path / "state")}


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text)
    return path


def folder(environ: dict[str, str]) -> list[str]:
    path = Path(environ["CORRAL_MODELS_FOLDER"])
    return sorted(each.name for each in path.iterdir()) if path.exists() else []


def test_a_model_is_created_then_unchanged_then_configured(
    tmp_path: Path, environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, "m.yaml", document("m", parallel=2))
    assert apply([file], environ) == 0
    assert apply([file], environ) == 0
    file.write_text(document("m", parallel=3))
    assert apply([file], environ) == 0
    assert capsys.readouterr().out.splitlines() == [
        "model.corral.dev/m created",
        "model.corral.dev/m unchanged",
        "model.corral.dev/m configured",
    ]
    [model] = load_models((tmp_path / "models" / "m.yaml").read_text())
    assert model.spec.parallel == 3


def test_each_model_of_a_folder_with_several_documents_gets_a_file(
    tmp_path: Path, environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    written(source, "a.yaml", f"{document('a')}\n---\n{document('b')}")
    written(source, "c.yml", document("c"))
    assert apply([source], environ) == 0
    assert folder(environ) == ["a.yaml", "b.yaml", "c.yaml"]
    assert delete([source / "a.yaml"], environ) == 0
    assert folder(environ) == ["c.yaml"]
    assert capsys.readouterr().out.splitlines()[-2:] == [
        'model.corral.dev "a" deleted',
        'model.corral.dev "b" deleted',
    ]


def test_a_model_of_the_standard_input_is_applied(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(document("m")))
    assert apply([Path("-")], environ) == 0
    assert capsys.readouterr().out == "model.corral.dev/m created\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (document("m", parallel=0), "spec.parallel"),
        ("a: [", "not valid YAML"),
        ("- a\n", "every document must be a Model"),
        ("", "every document must be a Model"),
        (f"{document('m')}\n---\n{document('m')}", "in the files twice"),
    ],
)
def test_an_error_in_one_file_leaves_all_as_they_were(
    tmp_path: Path, environ: dict[str, str], text: str, reason: str
) -> None:
    good, bad = written(tmp_path, "good.yaml", document("good")), written(tmp_path, "bad.yaml", text)
    with pytest.raises(CannotApply, match=reason):
        apply([good, bad], environ)
    assert folder(environ) == []


def test_a_name_of_another_applied_model_is_refused(tmp_path: Path, environ: dict[str, str]) -> None:
    assert apply([written(tmp_path, "a.yaml", document("a", names="[x]"))], environ) == 0
    with pytest.raises(CannotApply, match="the name x:latest belongs to Model default/a"):
        apply([written(tmp_path, "b.yaml", document("b", names="['x:latest']"))], environ)
    assert folder(environ) == ["a.yaml"]


def test_a_missing_file_is_reported(tmp_path: Path, environ: dict[str, str]) -> None:
    with pytest.raises(CannotApply, match=r"none\.yaml cannot be read"):
        apply([tmp_path / "none.yaml"], environ)


def test_a_model_that_was_not_applied_is_not_deleted(
    tmp_path: Path, environ: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert delete([written(tmp_path, "m.yaml", document("m"))], environ) == 1
    assert capsys.readouterr().err == f'Error: model.corral.dev "m" not found in {tmp_path}/models\n'
