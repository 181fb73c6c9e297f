"""Repository: layout rules, and files, settings and links named in the documentation."""

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
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"corral_scripts_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


guard = _script("guard")
llama_wheel = _script("llama_wheel")


def test_the_layout_rules_are_kept() -> None:
    assert guard.violations(ROOT) == []


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
        ("server/corral_server/a.py", "x = 1\n" * 601, "601 lines"),
        ("tests/a.py", "def f():\n" + "    x = 1\n" * 45, "f has 46 lines"),
    ],
)
def test_the_guard_reports_a_violation(tmp_path: Path, path: str, text: str, complaint: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(text)
    assert [line for line in guard.violations(tmp_path) if line.startswith(path) and complaint in line]


def test_the_guard_reports_a_copy_that_differs_from_its_original_or_is_a_link(tmp_path: Path) -> None:
    [(copy, original)] = ((tmp_path / name, tmp_path / source) for name, source in guard.COPIES.items())
    for file in (original, copy):
        file.parent.mkdir(parents=True)
        file.write_text("a: 1\n")
    assert guard.violations(tmp_path) == []
    copy.write_text("a: 2\n")
    assert "must be a copy of crds/" in guard.violations(tmp_path)[0]
    copy.unlink()
    copy.symlink_to(original)
    assert "must be a copy of crds/" in guard.violations(tmp_path)[0]


def test_the_guard_allows_one_adapter_per_part(tmp_path: Path) -> None:
    package = tmp_path / "server" / "corral_server" / "runner"
    (package / "llama").mkdir(parents=True)
    (package / "llama" / "api.py").write_text("import llama_cpp\n")
    assert guard.violations(tmp_path) == []
    (package / "other.py").write_text("from llama_cpp import llama_decode\n")
    folder = "server/corral_server/runner"
    assert guard.violations(tmp_path) == [
        f"{folder}: llama_cpp is imported in {folder}/llama/api.py, {folder}/other.py; keep it in one adapter module"
    ]


def test_a_long_module_is_a_warning_and_no_violation(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests/long.py").write_text("x = 1\n" * 401)
    (tmp_path / "tests/short.py").write_text("x = 1\n" * 400)
    assert guard.violations(tmp_path) == []
    assert list(guard.long_modules(tmp_path)) == ["tests/long.py: warning: 401 lines; does it hold two concepts?"]


def test_the_cache_key_of_the_wheel_depends_on_the_users_build_flags(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CMAKE_ARGS", raising=False)
    plain = llama_wheel.wheel_dir()
    monkeypatch.setenv("CMAKE_ARGS", "-DGGML_CUDA=on")
    assert plain.is_relative_to(tmp_path)
    assert llama_wheel.wheel_dir() != plain


def test_the_native_and_the_portable_wheel_have_different_cache_keys(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert llama_wheel.wheel_dir() != llama_wheel.wheel_dir(portable=True)


def test_the_locked_source_of_llama_cpp_python_is_the_pinned_version() -> None:
    locked = (ROOT / "requirements" / "llama-cpp-python.txt").read_text()
    assert locked.startswith(f"llama-cpp-python=={llama_wheel.version()} ")
    assert "--hash=sha256:" in locked


def test_every_package_that_an_image_installs_is_checked_by_its_hash() -> None:
    """Each ``pip install`` of the Dockerfile names hashes or takes only local wheels."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    installs = [line for line in text.splitlines() if "pip install" in line]
    assert installs
    assert [line for line in installs if "--require-hashes" not in line and "--no-index" not in line] == []


def test_a_missing_compiler_is_reported_with_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"lacks a C compiler, a C\+\+ compiler, cmake"):
        llama_wheel.wheel()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_only_existing_files_and_make_targets(page: Path) -> None:
    text = page.read_text()
    paths = re.findall(r"`((?:operator|server|tests|bench|scripts|docs|examples|crds|charts)/[\w./-]*)`", text)
    targets = re.findall(r"`make ([a-z-]+)", text)
    known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert [target for target in targets if target not in known] == []


def test_the_architecture_page_names_every_package() -> None:
    """Packages without modules of their own, and subpackages of one API, are covered by their parent."""
    page = (ROOT / "docs/architecture.md").read_text()
    packages = {init.parent for part in ("operator", "server") for init in (ROOT / part).rglob("__init__.py")}
    parents = {package.parent for package in packages}
    leaves = {package.relative_to(ROOT) for package in packages - parents}
    covered = {Path(path) for path in re.findall(r"`((?:operator|server)/[\w/]+)/`", page)}
    assert [str(leaf) for leaf in sorted(leaves) if not covered & {leaf, *leaf.parents}] == []


def test_every_setting_is_documented_and_no_other() -> None:
    name = r"(?:OLLAMA|CORRAL)_[A-Z_]+"
    sources = [path.read_text() for folder in ("operator", "server") for path in (ROOT / folder).rglob("*.py")]
    read = {found for text in sources for found in re.findall(rf'"({name})"', text)}
    assert set(re.findall(rf"`({name})`", (ROOT / "docs/settings.md").read_text())) == read


def test_every_relative_link_has_a_target() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in PAGES
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text())
        if not (page.parent / link).exists()
    ]
    assert broken == []


@pytest.mark.parametrize(("required", "outcome"), [("0", "1 skipped"), ("1", "1 error")])
def test_a_test_level_that_cannot_run_is_reported_or_fails(tmp_path: Path, required: str, outcome: str) -> None:
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
