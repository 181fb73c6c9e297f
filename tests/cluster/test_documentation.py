"""Snippets of the documentation with the real programs: kubectl, Helm, and an API server that validates objects."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import cast

import pytest
import yaml

from tests.cluster.api import MODELS, Object, at
from tests.cluster.cluster import Cluster
from tests.cluster.helm import CHART, Helm
from tests.docs.snippets import DOCS, ROOT, Command, blocks, commands, file_block, manifests, values_blocks
from tests.support.waiting import until

pytestmark = pytest.mark.cluster

_KEYS = set(yaml.safe_load((CHART / "values.yaml").read_text("utf-8")))
_RENDERED = ("--set", "--set-string", "--set-json", "--values", "-f", "--namespace", "-n")
"""Options of ``helm install`` and ``upgrade`` that have a value and are options of ``helm template`` too."""
_BUILT_IN = ("v1", "apps/v1", "batch/v1", "networking.k8s.io/v1", "node.k8s.io/v1", "rbac.authorization.k8s.io/v1")


def _run(cluster: Cluster, *words: str, text: str = "", folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run one of the cluster's programs with access to the cluster."""
    environment = os.environ | {"KUBECONFIG": str(cluster.kubeconfig)}
    command = [str(cluster.programs / words[0]), *words[1:]]
    return subprocess.run(
        command, input=text, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("program", ["helm", "kubectl"])
def test_every_command_has_only_options_that_the_program_has(cluster: Cluster, program: str) -> None:
    """With --help nothing is run, and an unknown option or command is still an error.

    All options of one subcommand are checked at once.
    """
    together: dict[tuple[str, ...], list[str]] = {}
    for command in commands(program):
        subcommand, others = _subcommand(command)
        if subcommand == ("corral",):  # the plugin
            continue
        together.setdefault(subcommand, []).extend(others)
    assert len(together) > 3
    for subcommand, others in together.items():
        done = _run(cluster, program, *subcommand, *others, "--help")
        assert (done.returncode, done.stderr) == (0, ""), f"{program} {' '.join(subcommand)}"
        assert f"{program} {' '.join(subcommand)}" in done.stdout


def _subcommand(command: Command) -> tuple[tuple[str, ...], list[str]]:
    """Return the words of the subcommand, and the others up to those of another program behind ``--``."""
    words = list(command.words[1:])
    words = words[: words.index("--")] if "--" in words else words
    while words[0].startswith("-"):  # an option with a value before the subcommand
        words = [*words[2:], *words[:2]]
    count = {"create": 2, "rollout": 2}.get(words[0], 1)
    count += words[:2] == ["create", "secret"]
    return tuple(words[:count]), words[count:]


def _corral_releases() -> list[Command]:
    found = [command for command in commands("helm") if "charts/corral" in command.words]
    assert len(found) > 10
    return found


def _values(command: Command, folder: Path) -> list[str]:
    """Return the options with the command's values; a file that the page shows is written to ``folder``.

    Other files that do not exist are left out: those that an earlier command writes, or that the page shows in parts.
    """
    found: list[str] = []
    for option, value in zip(command.words, command.words[1:], strict=False):
        if option not in _RENDERED:
            continue
        if option in ("--values", "-f") and not (ROOT / value).exists():
            block = file_block(command.page, value)
            if block is None:
                continue
            (folder / value).write_text(block.text)
            value = str(folder / value)
        found += [option, value]
    return found


def _render(helm: Helm, *arguments: str) -> str:
    """Return the error of rendering the chart, empty if there is none. Every page has set the registry before."""
    registry = ["--set", "image.registry=registry.example"]
    done = helm("template", "corral", str(CHART), "--kube-version", "1.36.0", *registry, *arguments)
    return done.stderr if done.returncode != 0 else ""


def test_every_installation_of_the_chart_renders(helm: Helm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    releases = {tuple(_values(command, tmp_path)): command for command in _corral_releases()}
    failed = [(str(command), error) for values, command in releases.items() if (error := _render(helm, *values))]
    assert failed == []


def test_every_block_of_values_is_accepted_by_the_chart(helm: Helm, tmp_path: Path) -> None:
    found = values_blocks(_KEYS)
    assert len(found) > 10
    failed = []
    for block in found:
        (tmp_path / "block.yaml").write_text(block.text)
        if error := _render(helm, "--values", str(tmp_path / "block.yaml")):
            failed.append(f"{block}: {error}")
    assert failed == []


def test_a_value_that_the_chart_does_not_have_is_noticed(helm: Helm) -> None:
    assert "gpuPool" in _render(helm, "--set-json", 'gpuPool=[{"memory": "1Gi"}]')


def test_the_api_server_accepts_every_model(cluster: Cluster) -> None:
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    found = manifests("Model")
    assert len(found) > 10
    for manifest in found:
        metadata = {**cast("Object", manifest.document["metadata"]), "namespace": "default"}
        body = {**manifest.document, "metadata": metadata}
        cluster.api.request("POST", f"{MODELS}/namespaces/default/models", body=body, query=query)


def test_the_api_server_accepts_every_other_object(cluster: Cluster) -> None:
    refused = []
    for manifest in manifests():
        if manifest.document["apiVersion"] not in _BUILT_IN:
            continue
        metadata = {**cast("Object", manifest.document["metadata"])}
        metadata.pop("namespace", None)
        text = yaml.safe_dump({**manifest.document, "metadata": metadata})
        done = _run(cluster, "kubectl", "create", "--dry-run=server", "--validate=strict", "-f", "-", text=text)
        refused += [f"{manifest}: {done.stderr}"] if done.returncode else []
    assert refused == []


def test_models_are_restored_from_the_file_of_the_backup(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    page = DOCS / "how-to/backup.md"
    [backup] = [command for command in blocks(page)[0].text.splitlines() if command.startswith("kubectl")]
    [restore] = [command for command in blocks(page)[1].text.splitlines() if command.startswith("kubectl")]
    model = f"{MODELS}/namespaces/{namespace}/models/kept"
    spec = {"source": "ollama://llama3.2:1b", "suspend": True}
    cluster.api.create(model.rpartition("/")[0], {**_MODEL, "metadata": {"name": "kept"}, "spec": spec})

    _shell(cluster, backup.replace("--all-namespaces", f"--namespace {namespace}"), tmp_path)
    before = at(cluster.api.get(model), "metadata", "uid")
    cluster.api.delete(model)
    until(lambda: not cluster.api.find(model), 30, what="the end of the Model")
    _shell(cluster, restore, tmp_path)

    restored = cluster.api.get(model)
    assert at(restored, "metadata", "uid") != before
    assert at(restored, "spec", "source") == spec["source"]


_MODEL: Object = {"apiVersion": "corral.dev/v1alpha1", "kind": "Model"}


def _shell(cluster: Cluster, line: str, folder: Path) -> None:
    path = f"{cluster.programs}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"KUBECONFIG": str(cluster.kubeconfig), "PATH": path}
    subprocess.run(["bash", "-euc", line], cwd=folder, env=environment, check=True, timeout=60)
