"""Workflows of GitHub Actions: valid, pinned, with few permissions, and made of programs of this repository."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from scripts import images

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
PERMISSIONS = {
    "ci.test": {"contents": "read"},
    "release.test": {"contents": "read"},
    "release.version": {"contents": "read"},
    "release.image": {"contents": "read", "packages": "write"},
    "release.images": {"contents": "read", "packages": "write", "id-token": "write"},
    "release.charts": {"contents": "read", "packages": "write", "id-token": "write"},
    "release.package": {"contents": "read"},
    "release.pypi": {"id-token": "write"},
    "release.release": {"contents": "write", "id-token": "write", "attestations": "write"},
}
"""What each job may do with the token of the workflow; id-token is for keyless signatures and trusted publishing."""

Json = dict[str, object]


def load(path: Path) -> Json:
    document = yaml.safe_load(path.read_text("utf-8"))
    assert isinstance(document, dict)
    return document


def jobs() -> Iterator[tuple[str, Json]]:
    """Yield the jobs of all workflows with their names."""
    for path in WORKFLOWS:
        found = load(path)["jobs"]
        assert isinstance(found, dict)
        yield from ((f"{path.stem}.{name}", job) for name, job in found.items())


def steps() -> Iterator[tuple[str, Json]]:
    for name, job in jobs():
        found = job.get("steps", [])
        assert isinstance(found, list)
        yield from ((name, step) for step in found)


def scripts() -> list[tuple[str, str]]:
    return [(name, str(step["run"])) for name, step in steps() if "run" in step]


def test_the_workflows_fit_the_schema() -> None:
    schema = ["--builtin-schema", "vendor.github-workflows"]
    command = [sys.executable, "-m", "check_jsonschema", *schema, *map(str, WORKFLOWS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_jobs_have_only_the_permissions_that_they_need() -> None:
    assert [path.name for path in WORKFLOWS if load(path).get("permissions") != {}] == []
    assert {name: job.get("permissions") for name, job in jobs()} == PERMISSIONS


def test_every_job_has_a_time_limit() -> None:
    assert [name for name, job in jobs() if "uses" not in job and "timeout-minutes" not in job] == []


def test_actions_are_pinned_by_commit_with_their_version() -> None:
    lines = [line.strip(" -") for path in WORKFLOWS for line in path.read_text().splitlines() if "uses:" in line]
    pinned = re.compile(r"uses: [\w.-]+/[\w.-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+|uses: \./\.github/workflows/ci\.yml")
    assert len(lines) > 10
    assert [line for line in lines if not pinned.fullmatch(line)] == []


def test_one_action_has_one_version() -> None:
    text = "".join(path.read_text() for path in WORKFLOWS)
    found = set(re.findall(r"uses: ([\w./-]+)@(\w+)", text))
    assert len(found) == len({name for name, _ in found})


def test_checkouts_keep_no_credentials() -> None:
    checkouts = [step for _, step in steps() if str(step.get("uses", "")).startswith("actions/checkout@")]
    assert len(checkouts) > 3
    assert [step for step in checkouts if step.get("with") != {"persist-credentials": False}] == []


def test_scripts_contain_no_expressions() -> None:
    """An expression in a script is text that the shell runs; values come by the environment instead."""
    assert [name for name, script in scripts() if "${{" in script] == []


@pytest.mark.parametrize(("name", "script"), scripts())
def test_a_script_is_valid_shell(name: str, script: str) -> None:
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, timeout=10, check=False)
    assert (done.returncode, done.stderr) == (0, ""), name


def test_scripts_name_programs_and_targets_of_this_repository() -> None:
    text = "\n".join(script for _, script in scripts())
    programs = set(re.findall(r"(?:python3 |^)((?:scripts|\.ci)/[\w./-]+)", text, re.MULTILINE))
    targets = set(re.findall(r"\bmake (\w+)", text))
    known = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert programs >= {".ci/run", "scripts/images.py", "scripts/release.py"}
    assert {path for path in programs if not (ROOT / path).exists()} == set()
    assert {"charts", "package"} <= targets <= set(known)


def test_the_release_builds_every_image_for_both_architectures() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    built = {*images.TARGETS, *re.findall(r"^FROM runner AS (runner-\w+)$", dockerfile, re.MULTILINE)}
    job = dict(jobs())["release.image"]
    strategy = job["strategy"]
    assert isinstance(strategy, dict)
    rows = strategy["matrix"]["include"]
    assert {row["target"] for row in rows} == built
    for target in built - {"runner-rocm"}:  # AMD's toolkit is for amd64 alone
        assert {row["arch"] for row in rows if row["target"] == target} == {"amd64", "arm64"}
    signed = re.findall(r"for target in ([^;]+);", "\n".join(script for _, script in scripts()))
    assert [set(line.split()) for line in signed] == [built]
