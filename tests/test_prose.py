"""``scripts/prose.py``, the check for phrases that plain technical English does without."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import prose

PAGE = Path("docs/page.md")


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("The model is unloaded when nobody asks for it.", "nobody"),
        ("What always holds: the list is sorted.", "What always holds"),
        ("Whoever starts it is told so.", "Whoever"),
        ("def is_told(self) -> bool:", "is_told"),
        ("self._heard = heard", "heard"),
        ("# last words", "last words"),
    ],
)
def test_a_listed_phrase_is_found_in_prose_and_in_names(text: str, phrase: str) -> None:
    assert [finding.phrase for finding in prose.findings(text, PAGE)] == [phrase]


@pytest.mark.parametrize("text", ["the unheard case", "recommended", "troubleshooting"])
def test_a_phrase_inside_a_longer_word_is_not_found(text: str) -> None:
    assert list(prose.findings(text, PAGE)) == []


def test_a_literal_text_of_another_project_is_not_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prose, "LITERALS", ("nobody is home",))
    assert list(prose.findings('"error": "nobody is home"', PAGE)) == []
    assert [finding.line for finding in prose.findings("nobody is home\nnobody", PAGE)] == [2]


def test_the_exit_code_is_1_for_findings_and_0_for_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / PAGE).write_text("One\ntwo, as nobody knows\n")
    assert prose.main([str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith("docs/page.md:2: 'nobody': write ")
    assert prose.main(["--report", str(tmp_path)]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["1", "docs/page.md"],
        ["1", "lines", "in", "all"],
    ]


def test_files_of_every_checked_folder_and_of_the_root_are_read_and_others_are_not(tmp_path: Path) -> None:
    for name in ("README.md", "operator/a/b.py", "charts/NOTES.txt", "images/pip", ".venv/c.py", "docs/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    assert [str(path) for path in prose.files(tmp_path)] == [
        "README.md",
        "charts/NOTES.txt",
        "images/pip",
        "operator/a/b.py",
    ]
