"""Releases: one version everywhere, sections of the changelog, and the packages with their entry points."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from configparser import ConfigParser
from pathlib import Path

import psutil
import pytest

from scripts import images, release
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
LOG = """# Changelog

## [Unreleased]

### Added

- Something new.

## [0.1.0] - 2026-01-31

- The first one.
"""
TODAY = datetime.date(2026, 12, 24)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a folder with the files that have a version."""
    for path in (ROOT / "pyproject.toml", *ROOT.glob("charts/*/Chart.yaml")):
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (tmp_path / "CHANGELOG.md").write_text(LOG)
    return tmp_path


def test_all_versions_of_the_repository_are_equal() -> None:
    assert len(release.charts(ROOT)) == 2
    assert list(release.problems(ROOT)) == []


def test_the_changelog_has_something_for_the_next_release_or_this_version() -> None:
    assert any(_has_notes(wanted) for wanted in (release.UNRELEASED, release.version()))


def _has_notes(wanted: str) -> bool:
    try:
        return bool(release.notes(ROOT, wanted))
    except release.ReleaseError:
        return False


def test_a_copy_with_another_version_is_reported(project: Path) -> None:
    chart = project / "charts/models/Chart.yaml"
    chart.write_text(chart.read_text().replace("appVersion: ", "appVersion: 9"))
    version = release.version(project)
    assert list(release.problems(project)) == [
        f"charts/models/Chart.yaml: appVersion is 9{version}, the version is {version}"
    ]


def test_a_bump_changes_all_versions_and_dates_the_changelog(project: Path) -> None:
    release.bump(project, "7.0.0", TODAY)
    assert release.version(project) == "7.0.0"
    assert list(release.problems(project, "v7.0.0")) == []
    text = (project / "CHANGELOG.md").read_text()
    assert "## [Unreleased]\n\n## [7.0.0] - 2026-12-24\n\n### Added\n" in text
    assert release.notes(project, "7.0.0") == "### Added\n\n- Something new."
    assert release.notes(project, "0.1.0") == "- The first one."


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("0.0.1", "older than the present version"),
        ("1.0", "no version"),
        ("1.0.0rc1", "no version"),
        ("v1.0.0", "no version"),
        ("01.0.0", "no version"),
    ],
)
def test_a_bump_to_something_else_than_a_newer_version_is_refused(project: Path, version: str, reason: str) -> None:
    before = (project / "pyproject.toml").read_text()
    with pytest.raises(release.ReleaseError, match=reason):
        release.bump(project, version, TODAY)
    assert (project / "pyproject.toml").read_text() == before


def test_a_candidate_is_older_than_its_release(project: Path) -> None:
    release.bump(project, "7.0.0-rc.2", TODAY)
    (project / "CHANGELOG.md").write_text(LOG)
    with pytest.raises(release.ReleaseError, match="older"):
        release.bump(project, "7.0.0-rc.1", TODAY)
    release.bump(project, "7.0.0", TODAY)


def test_a_release_needs_changes_in_the_changelog(project: Path) -> None:
    (project / "CHANGELOG.md").write_text("# Changelog\n\n## [Unreleased]\n")
    with pytest.raises(release.ReleaseError, match="no section \\[Unreleased\\], or it is empty"):
        release.bump(project, "7.0.0", TODAY)


def test_a_tag_must_be_the_version_with_a_section(project: Path) -> None:
    release.bump(project, "7.0.0", TODAY)
    (project / "CHANGELOG.md").write_text(LOG)
    wrong, missing = release.problems(project, "v7.0.1")
    assert wrong.startswith("the tag is v7.0.1, the version v7.0.0")
    assert missing == "CHANGELOG.md has no section [7.0.0], or it is empty"


def test_the_images_have_the_version_as_an_argument() -> None:
    options = images.Engine("buildx")._options(None)
    assert f"VERSION={release.version()}" in options


def test_the_labels_of_an_image_name_the_commit_in_a_workflow() -> None:
    environ = {"GITHUB_SHA": "c0ffee", "GITHUB_SERVER_URL": "https://github.com", "GITHUB_REPOSITORY": "someone/corral"}
    assert images.labels({}) == {}
    assert images.labels(environ) == {
        "org.opencontainers.image.source": "https://github.com/someone/corral",
        "org.opencontainers.image.revision": "c0ffee",
    }


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the source distribution, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("packages")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True, timeout=120)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    source = folder / f"corral-{release.version()}"
    subprocess.run([*build, "-t", "wheel"], cwd=source, check=True, capture_output=True, timeout=120)
    return folder


def test_the_wheel_has_every_module_and_entry_point(packages: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    with zipfile.ZipFile(packages / f"corral-{release.version()}-py3-none-any.whl") as wheel:
        names = set(wheel.namelist())
        entries = ConfigParser(delimiters=("=",))
        entries.read_string(wheel.read(f"corral-{release.version()}.dist-info/entry_points.txt").decode())
    modules = {str(path.relative_to(ROOT / part)) for part in ("operator", "server") for path in _modules(part)}
    assert modules <= names
    assert dict(entries["console_scripts"]) == project["scripts"]
    assert {"corral", "corral-gateway", "corral-operator", "corral-runner"} <= entries["console_scripts"].keys()
    targets = {target.partition(":")[0].replace(".", "/") for target in project["scripts"].values()}
    assert {target for target in targets if not {f"{target}.py", f"{target}/__init__.py"} & names} == set()


def _modules(part: str) -> list[Path]:
    return [path for path in (ROOT / part).rglob("*.py") if "__pycache__" not in path.parts]


def test_the_source_distribution_has_the_license_and_the_changelog_and_no_tests(packages: Path) -> None:
    names = {path.name for path in (packages / f"corral-{release.version()}").iterdir()}
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "operator", "server", "scripts"} <= names
    assert not {"tests", "docs", "bench", ".github"} & names


@pytest.fixture(scope="module")
def installed(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of programs of a new environment with the wheel.

    The packages that it requires are those of this environment: a path in a ``.pth`` file adds them, but not the
    checkout, which another ``.pth`` file adds here (``site`` reads none in the added folder).
    """
    environment = tmp_path_factory.mktemp("installed") / "venv"
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--quiet", "--python", sys.executable, str(environment)], check=True, timeout=120)
    wheel = packages / f"corral-{release.version()}-py3-none-any.whl"
    install = [*uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", str(environment), str(wheel)]
    subprocess.run(install, check=True, timeout=120)
    (folder,) = environment.glob("lib/python*/site-packages")
    (folder / "requirements.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return environment / "bin"


@pytest.mark.process
def test_the_installed_package_has_its_programs_and_serves_a_request(installed: Path, tmp_path: Path) -> None:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OLLAMA_", "CORRAL_"))}
    mine = {
        "HOME": str(tmp_path),
        "XDG_STATE_HOME": "",
        "XDG_CACHE_HOME": "",
        "OLLAMA_HOST": f"127.0.0.1:{free_port()}",
    }

    def corral(*arguments: str) -> str:
        done = subprocess.run(
            [installed / "corral", *arguments],
            cwd=tmp_path,
            env=kept | mine,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert corral("--version") == f"corral {release.version()}\n"
    assert {"corral", "corral-gateway", "corral-operator", "corral-runner"} <= {
        path.name for path in installed.iterdir()
    }
    assert f"corral {release.version()} with all of corral[serve]" in corral("doctor")
    try:
        assert corral("ls").split() == ["NAME", "ID", "SIZE", "MODIFIED", "STATE"]
        assert str(installed.parent) in _command_line(tmp_path / ".local/state/corral")
    finally:
        corral("stop", "--server")


def _command_line(state: Path) -> str:
    """Return the command line of the server that a command has started."""
    (file,) = state.glob("server-*.pid")
    return " ".join(psutil.Process(int(file.read_text())).cmdline())
