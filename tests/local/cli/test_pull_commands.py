"""``corral pull``, ``corral list``, ``corral run`` and ``corral cache`` as a user types them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.local.pulls_stack import saved_bytes, serving_from, settings, store
from tests.local.served import START, model_file
from tests.support.ollama_registry import OllamaRegistry, ollama_registry, padded_weights
from tests.support.tiny_model import write_tiny_model
from tests.support.waiting import until

pytestmark = pytest.mark.process

SIZE = 40 * 2**20
CORRAL = (sys.executable, "-m", "corral_server.local")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[OllamaRegistry]:
    with ollama_registry() as registry:
        registry.push(padded_weights(write_tiny_model(tmp_path), SIZE))
        yield registry


def corral(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*CORRAL, *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=START, check=False
    )


def test_a_pulled_source_is_listed_and_served_without_the_network(tmp_path: Path, registry: OllamaRegistry) -> None:
    environment = settings(tmp_path, registry)
    pulled = corral(environment, "pull", registry.uri())
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout.startswith(f"{registry.uri()}  41.9 MB  sha256:")
    assert "resolving" in pulled.stderr
    listed = corral(environment, "cache", "ls").stdout.splitlines()
    assert listed[0].split() == ["SOURCE", "SIZE", "USED", "STATE"]
    assert listed[1].startswith(registry.uri())
    assert listed[1].endswith("complete")
    requests = len(registry.requests)
    file = model_file(tmp_path, "tiny", source=registry.uri(), contextLength=256)
    with serving_from(tmp_path, registry, file) as served:
        assert corral({**environment, "OLLAMA_HOST": served.url}, "run", "tiny", "Hello").returncode == 0
        refused = corral(environment, "cache", "rm", registry.uri())
        assert (refused.returncode, "in use" in refused.stderr) == (1, True)
    assert len(registry.requests) == requests
    assert corral(environment, "cache", "rm", registry.uri()).returncode == 0
    assert registry.uri() not in corral(environment, "cache", "ls").stdout


def _default_interrupt() -> None:
    """Let SIGINT end the process: shells make processes that they start in the background ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_ends_a_pull_and_the_next_one_continues(tmp_path: Path, registry: OllamaRegistry) -> None:
    environment = settings(tmp_path, registry)
    registry.limit = SIZE // 2
    command = [*CORRAL, "pull", registry.uri()]
    with subprocess.Popen(
        command,
        env={**os.environ, **environment},
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_default_interrupt,
    ) as process:
        try:
            until(lambda: saved_bytes(store(tmp_path)) >= SIZE // 4, START, what="a saved part of the download")
        finally:
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=START)
    assert process.returncode == 130
    assert errors.endswith("the pull has ended; the next one continues where it stopped\n")
    assert "partial" in corral(environment, "cache", "ls").stdout
    before = registry.sent
    registry.go_on.set()
    assert corral(environment, "pull", registry.uri()).returncode == 0
    assert registry.sent - before < SIZE - SIZE // 8, "what had arrived was not downloaded again"


def test_the_state_of_a_pull_is_shown_and_run_waits_for_it(tmp_path: Path, registry: OllamaRegistry) -> None:
    registry.limit = SIZE // 2
    file = model_file(tmp_path, "tiny", source=registry.uri(), contextLength=256)
    with serving_from(tmp_path, registry, file) as served:
        environment = {**settings(tmp_path, registry), "OLLAMA_HOST": served.url}
        until(lambda: registry.sent >= SIZE // 2, START, what="a part of the download")
        listed = until(lambda: [line for line in corral(environment, "list").stdout.splitlines() if "%" in line], START)
        assert "Pulling, " in listed[0]
        command = [*CORRAL, "run", "tiny", "Hello"]
        with subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True) as running:
            assert running.stderr is not None
            assert "% " in running.stderr.readline()
            registry.go_on.set()
            assert running.wait(START) == 0
        assert corral(environment, "pull", "tiny").stdout == "tiny is pulled\n"
        assert "Pulling" not in corral(environment, "list").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pull", "ollama://127.0.0.1:1/library/x"), "127.0.0.1"),
        (("pull", "file:///weights.gguf"), "nothing to pull"),
        (("pull", "ftp://host/x"), "the scheme ftp:// is not supported"),
        (("cache", "rm", "https://example.com/x.gguf"), "corral cache ls"),
    ],
)
def test_errors_say_what_is_wrong(
    tmp_path: Path, registry: OllamaRegistry, arguments: tuple[str, ...], message: str
) -> None:
    refused = corral(settings(tmp_path, registry), *arguments)
    assert refused.returncode == 1
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr


def test_prune_says_what_it_removed(tmp_path: Path, registry: OllamaRegistry) -> None:
    environment = settings(tmp_path, registry)
    assert corral(environment, "cache", "prune", "--age", "1h", "--size-limit", "1Gi").stdout.startswith("removed 0 ")
    assert corral(environment, "cache", "prune", "--age", "soon").returncode == 2


def test_the_reason_of_a_failed_pull_is_listed(tmp_path: Path, registry: OllamaRegistry) -> None:
    file = model_file(tmp_path, "tiny", source=registry.uri(tag="nope"), contextLength=256)
    with serving_from(tmp_path, registry, file) as served:
        until(lambda: served.events("pull_failed"), START, what="the failure")
        listed = corral({"OLLAMA_HOST": served.url}, "list").stdout
        assert "Failed: model 'tiny:latest' cannot be pulled: " in listed
        assert "nope" in listed
