"""Version, changelog and packages of a release.

The version of everything is ``version`` in pyproject.toml: of the Python package, of what ``corral --version`` and the
metrics report, of the images (their tags and the label ``org.opencontainers.image.version``) and of the charts. The
charts have a copy, because Helm reads it from their folder; ``check`` compares it.

- ``version`` prints the version.
- ``check [TAG]`` reports copies that differ. With the tag of a release, ``v`` and the version, it also requires that
  the tag fits and that CHANGELOG.md has a section for it.
- ``bump VERSION`` sets the version everywhere, and gives the section Unreleased of CHANGELOG.md its number and date.
- ``notes [VERSION]`` prints the section of CHANGELOG.md.
- ``charts [--output DIR] [--registry HOST/PATH]`` packages the charts with helm. ``--registry`` becomes the default of
  ``image.registry``, so that a chart that was installed from a registry finds the images there.

It needs only the standard library.
"""

from __future__ import annotations

import argparse
import datetime
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UNRELEASED = "Unreleased"
_VERSION = re.compile(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-rc\.([1-9]\d*))?")
"""Versions that PEP 440 and SemVer 2 read alike: Helm requires SemVer (https://semver.org)."""
_COPIES = ("version", "appVersion")
_REGISTRY = re.compile(r'^(image:\n(?:  .*\n)*?  registry: )""$', re.MULTILINE)


class ReleaseError(Exception):
    """The release cannot be made; the text says what to change."""


def version(root: Path = ROOT) -> str:
    """Return the version in pyproject.toml. Raises ReleaseError for one that Helm does not accept."""
    found = str(tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]["version"])
    return _checked(found)


def _checked(text: str) -> str:
    if _VERSION.fullmatch(text) is None:
        raise ReleaseError(f"{text!r} is no version: write X.Y.Z, or X.Y.Z-rc.N for a candidate")
    return text


def _order(text: str) -> tuple[int, ...]:
    """Return a sort key: a candidate comes before its release."""
    found = _VERSION.fullmatch(text)
    assert found is not None, text
    *numbers, candidate = found.groups()
    return (*map(int, numbers), int(candidate) if candidate else sys.maxsize)


def charts(root: Path) -> list[Path]:
    return sorted(path.parent for path in root.glob("charts/*/Chart.yaml"))


def problems(root: Path, tag: str | None = None) -> Iterator[str]:
    """Yield what differs from the version in pyproject.toml, and with ``tag`` what a release of it lacks."""
    expected = version(root)
    for chart in charts(root):
        text = (chart / "Chart.yaml").read_text("utf-8")
        for field in _COPIES:
            found = re.findall(rf"^{field}: (\S+)$", text, re.MULTILINE)
            if found != [expected]:
                shown = ", ".join(found) or "missing"
                yield f"{chart.relative_to(root)}/Chart.yaml: {field} is {shown}, the version is {expected}"
    if tag is None:
        return
    if tag != f"v{expected}":
        yield f"the tag is {tag}, the version v{expected}: run scripts/release.py bump, and tag its commit"
    try:
        notes(root, expected)
    except ReleaseError as error:
        yield str(error)


def _sections(text: str) -> dict[str, str]:
    """Return the text of each section of the changelog by its title: Unreleased, or a version without its date."""
    parts = re.split(r"^## \[(\S+?)\].*\n", text, flags=re.MULTILINE)
    return {title: body.strip() for title, body in zip(parts[1::2], parts[2::2], strict=True)}


def notes(root: Path, wanted: str) -> str:
    """Return the section of CHANGELOG.md for a version. Raises ReleaseError if there is none, or nothing in it."""
    body = _sections((root / "CHANGELOG.md").read_text("utf-8")).get(wanted, "")
    if not body:
        raise ReleaseError(f"CHANGELOG.md has no section [{wanted}], or it is empty")
    return body


def bump(root: Path, new: str, today: datetime.date) -> None:
    """Set the version in all files. Raises ReleaseError if it is older, or if the changelog has nothing for it."""
    if _order(_checked(new)) < _order(version(root)):
        raise ReleaseError(f"{new} is older than the present version {version(root)}")
    log = root / "CHANGELOG.md"
    text = log.read_text("utf-8")
    if new in _sections(text):
        raise ReleaseError(f"CHANGELOG.md has a section [{new}] already")
    notes(root, UNRELEASED)
    dated = f"## [{UNRELEASED}]\n\n## [{new}] - {today.isoformat()}\n"
    log.write_text(text.replace(f"## [{UNRELEASED}]\n", dated, 1), "utf-8")
    _replace(root / "pyproject.toml", r'^version = ".*"$', f'version = "{new}"')
    for chart in charts(root):
        for field in _COPIES:
            _replace(chart / "Chart.yaml", rf"^{field}: .*$", f"{field}: {new}")


def _replace(path: Path, pattern: str, line: str) -> None:
    text, count = re.subn(pattern, line, path.read_text("utf-8"), count=1, flags=re.MULTILINE)
    if not count:
        raise ReleaseError(f"{path} has no line {pattern}")
    path.write_text(text, "utf-8")


def package_charts(root: Path, output: Path, *, registry: str = "", helm: str = "helm") -> list[Path]:
    """Package all charts into ``output``, with ``registry`` as their default; return the files. Raises ReleaseError."""
    output.mkdir(parents=True, exist_ok=True)
    packages = []
    for chart in charts(root):
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / chart.name
            shutil.copytree(chart, copy)
            if registry:
                _set_registry(copy / "values.yaml", registry)
            number = version(root)
            command = [helm, "package", str(copy), "--version", number, "--app-version", number]
            done = subprocess.run([*command, "--destination", str(output)], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ReleaseError(f"helm package {chart.name}: {done.stderr.strip()}")
        packages.append(Path(done.stdout.rpartition(": ")[2].strip()))
    return packages


def _set_registry(values: Path, registry: str) -> None:
    """Set the default of ``image.registry``; the values of a chart without images stay as they are."""
    text = values.read_text("utf-8")
    if re.search(r"^image:$", text, re.MULTILINE):
        text, count = _REGISTRY.subn(rf'\g<1>"{registry}"', text)
        if count != 1:
            raise ReleaseError(f"{values.parent.name}/values.yaml has no image.registry with an empty default")
        values.write_text(text, "utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Version, changelog and packages of a release.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("version", help="print the version")
    check = commands.add_parser("check", help="check that all versions are the one in pyproject.toml")
    check.add_argument("tag", nargs="?", help="tag of a release, which must fit")
    change = commands.add_parser("bump", help="set the version everywhere, and date the changelog")
    change.add_argument("version")
    section = commands.add_parser("notes", help="print the section of the changelog")
    section.add_argument("version", nargs="?")
    package = commands.add_parser("charts", help="package the charts with helm")
    package.add_argument("--output", type=Path, default=ROOT / "dist")
    package.add_argument("--registry", default="", help="default of image.registry in the packages")
    package.add_argument("--helm", default="helm", help="the helm program")
    return parser


def main(arguments: list[str]) -> int:
    """Run a command; return the exit code."""
    chosen = _parser().parse_args(arguments)
    try:
        if chosen.command == "version":
            print(version())
        elif chosen.command == "check":
            found = list(problems(ROOT, chosen.tag))
            print("\n".join(found) or f"all versions are {version()}")
            return 1 if found else 0
        elif chosen.command == "bump":
            bump(ROOT, chosen.version, datetime.datetime.now(datetime.UTC).date())
        elif chosen.command == "notes":
            print(notes(ROOT, chosen.version or version()))
        else:
            print(*package_charts(ROOT, chosen.output, registry=chosen.registry, helm=chosen.helm), sep="\n")
    except (ReleaseError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
