"""The program of ``helm test`` against a real gateway: with TLS and API keys, and the choice of the Model."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from corral_core.contracts.api_keys import key_digest
from corral_server.gateway.auth.key_store import KeyStore
from corral_server.gateway.directory.directory import ModelEntry
from corral_server.gateway.http_server.tls import TlsFiles
from tests.support.authority import Authority
from tests.support.fake_upstream import FakeUpstream, fake_upstream, reply
from tests.support.gateway import METADATA, MemoryDirectory, RunningGateway, entry, running_gateway

SCRIPT = Path(__file__).resolve().parents[2] / "charts/corral/files/helm_test.py"
CHAT = json.dumps({"message": {"role": "assistant", "content": "Hello."}, "eval_count": 3}).encode()
pytestmark = pytest.mark.process


async def ran(gateway: RunningGateway, **environment: str) -> tuple[int, str]:
    """Run the program as the pod does; return its exit code and what it printed."""
    address = {"CORRAL_TEST_HOST": "127.0.0.1", "CORRAL_TEST_PORT": str(gateway.port)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SCRIPT.read_text()),
        env={
            **{name: value for name, value in os.environ.items() if "proxy" not in name.lower()},
            **address,
            **environment,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


def sized(name: str, size: int, upstream: FakeUpstream) -> ModelEntry:
    return entry(name, upstream.port, metadata=replace(METADATA, size=size))


def keys(folder: Path) -> KeyStore:
    file = folder / "keys.yaml"
    file.write_text(f"keys: [{{name: test, sha256: {key_digest(b'corral_test').hex()}}}]")
    return KeyStore(str(file))


async def test_with_tls_and_a_key_the_smallest_model_is_asked(tmp_path: Path) -> None:
    certificate = Authority(tmp_path, "authority").issue("models.example.com")
    async with fake_upstream(reply(body=CHAT)) as small, fake_upstream(reply(body=CHAT)) as large:
        directory = MemoryDirectory.of(
            sized("large", 900, large), sized("small", 100, small), entry("unknown", large.port, metadata=None)
        )
        files = TlsFiles(certificate.certificate, certificate.key)
        async with running_gateway(directory, tls=files, keys=keys(tmp_path)) as gateway:
            trusted = {"CORRAL_TEST_CERTIFICATE": str(certificate.certificate)}
            code, output = await ran(gateway, CORRAL_TEST_KEY="corral_test\n", **trusted)
            assert (code, output) == (0, "small:latest: 'Hello.', 3 tokens\n")
            code, output = await ran(gateway, CORRAL_TEST_KEY="corral_wrong", **trusted)
            assert code == 1
            assert "401" in output
            other = Authority(tmp_path, "other").issue("models.example.org")
            code, output = await ran(
                gateway, CORRAL_TEST_KEY="corral_test", CORRAL_TEST_CERTIFICATE=str(other.certificate)
            )
            assert code == 1
            assert "certificate verify failed" in output
    assert (len(small.calls), len(large.calls)) == (1, 0)


async def test_without_a_key_gateways_that_require_one_pass(tmp_path: Path) -> None:
    async with running_gateway(MemoryDirectory(), keys=keys(tmp_path)) as gateway:
        code, output = await ran(gateway)
    assert code == 0
    assert "helmTest.apiKey.secret" in output


async def test_a_larger_model_is_asked_if_the_smallest_answers_with_an_error() -> None:
    embedding = json.dumps({"embeddings": [[0.5] * 384]}).encode()
    async with fake_upstream(reply(body=embedding)) as up:
        directory = MemoryDirectory.of(
            entry("failed", metadata=replace(METADATA, size=1), unavailable_reason="its weights are missing"),
            entry("minilm", up.port, metadata=replace(METADATA, size=2, capabilities=("embedding",))),
        )
        async with running_gateway(directory) as gateway:
            code, output = await ran(gateway)
            assert code == 0
            assert "its weights are missing" in output
            assert output.endswith("minilm:latest: an embedding of 384 numbers\n")
            directory.remove("default/minilm")
            code, output = await ran(gateway)
            assert code == 1
            assert output.endswith("no Model answered\n")
