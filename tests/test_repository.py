"""The checkout itself: the layout's guards hold, and what the documents name is there."""

from __future__ import annotations

import importlib.util
import operator
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"corral_scripts_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


guard = _script("guard")
llama_wheel = _script("llama_wheel")


def test_the_layout_holds() -> None:
    assert guard.broken(ROOT) == []


def test_the_standard_librarys_operator_is_not_shadowed() -> None:
    assert ROOT not in Path(operator.__file__ or "").parents
    subprocess.run([sys.executable, "-c", "import operator; operator.add"], cwd=ROOT, check=True, timeout=30)


@pytest.mark.parametrize(
    ("path", "text", "complaint"),
    [
        ("operator/__init__.py", "", "delete it"),
        ("server/__init__.py", "", "delete it"),
        ("operator/corral_core/a.py", "import httpx\n", "must not import httpx"),
        ("operator/corral_core/a.py", "def f():\n    from kopf import on\n", "must not import kopf"),
        ("server/corral_server/a.py", "x = 1\n" * 351, "351 lines"),
        ("tests/a.py", "def f():\n" + "    x = 1\n" * 45, "f has 46 lines"),
    ],
)
def test_the_guard_names_a_broken_rule(tmp_path: Path, path: str, text: str, complaint: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert [line for line in guard.broken(tmp_path) if line.startswith(path) and complaint in line]


def test_the_guard_allows_one_adapter_and_not_two(tmp_path: Path) -> None:
    package = tmp_path / "server" / "corral_server"
    package.mkdir(parents=True)
    (package / "engine.py").write_text("import llama_cpp\n")
    assert guard.broken(tmp_path) == []
    (package / "other.py").write_text("from llama_cpp import llama_decode\n")
    assert guard.broken(tmp_path) == [
        "server/corral_server: llama_cpp is imported in engine.py, other.py; one adapter module is enough"
    ]


def test_the_wheels_key_changes_with_the_users_build_flags(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    plain = llama_wheel.wheel_dir()
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=on")
    assert plain.is_relative_to(tmp_path)
    assert llama_wheel.wheel_dir() != plain


def test_a_machine_without_a_compiler_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"lacks a C compiler, a C\+\+ compiler, cmake"):
        llama_wheel.wheel()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_only_files_and_targets_that_exist(page: Path) -> None:
    text = page.read_text()
    paths = re.findall(r"`((?:operator|server|tests|bench|scripts|docs|examples|crds|charts)/[\w./-]*)`", text)
    targets = re.findall(r"`make ([a-z-]+)", text)
    known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert [target for target in targets if target not in known] == []


def test_the_architecture_page_names_modules_that_exist() -> None:
    """In a section about one folder, modules are named relative to it."""
    folder, missing, named = "", [], set()
    for line in (ROOT / "docs/architecture.md").read_text().splitlines():
        if heading := re.match(r"\*\*.*\*\*, in `([\w/]+)/`", line):
            folder = heading[1]
        elif line.startswith("## "):
            folder = ""
        for path in re.findall(r"`([\w/]+\.py)`", line) if folder else ():
            named.add(f"{folder}/{path}")
            missing += [] if (ROOT / folder / path).exists() else [f"{folder}/{path}"]
    assert missing == []
    assert len(named) > 60


def test_every_setting_that_is_read_is_explained_and_no_other() -> None:
    name = r"(?:OLLAMA|CORRAL)_[A-Z_]+"
    sources = [path.read_text() for folder in ("operator", "server") for path in (ROOT / folder).rglob("*.py")]
    read = {found for text in sources for found in re.findall(rf'"({name})"', text)}
    assert set(re.findall(rf"`({name})`", (ROOT / "docs/settings.md").read_text())) == read


def test_the_readme_leads_to_every_page() -> None:
    pages = {f"docs/{page.name}" for page in PAGES if page.name != "README.md"}
    assert set(re.findall(r"\]\((docs/[\w.]+)", (ROOT / "README.md").read_text())) >= pages


def test_every_relative_link_leads_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in PAGES
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert broken == []


@pytest.mark.parametrize(("required", "outcome"), [("0", "1 skipped"), ("1", "1 error")])
def test_a_level_that_cannot_run_is_named_or_fails(tmp_path: Path, required: str, outcome: str) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\ntestpaths = .\nmarkers = cluster: x\n")
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.fixture\n"
        "def cluster(): pytest.skip('needs etcd')\n"
        "@pytest.mark.cluster\n"
        "def test_it(cluster): pass\n"
        "def test_that(): pass\n"
    )
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "CORRAL_REQUIRE_CLUSTER": required, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert outcome in ran.stdout
    assert "0.0 s  level 1, values: 1 run" in ran.stdout
    assert ran.returncode == int(required)
    assert ("level 3, API server: not run: needs etcd" in ran.stdout) == (required == "0")
    assert "needs etcd" in ran.stdout
