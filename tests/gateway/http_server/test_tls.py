"""TLS with a certificate and a key file, and their renewal."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ssl
import subprocess
from pathlib import Path

import pytest

from corral_core.base.errors import InvalidSetting
from corral_server.gateway.config import GatewayConfig
from corral_server.gateway.http_server.limits import ERROR_CONNECTIONS, Limits
from corral_server.gateway.http_server.tls import TlsFiles, server_context
from corral_server.system import file_changes
from tests.support.fake_upstream import fake_upstream, stream
from tests.support.gateway import MemoryDirectory, RunningGateway, entry, raw_request, running_gateway
from tests.support.waiting import auntil


def certificate(folder: Path, name: str) -> TlsFiles:
    """A new certificate for localhost with this name as its organisation, in place of the one that was there."""
    new = TlsFiles(folder / "new.crt", folder / "new.key")
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subject = ["-subj", f"/O={name}/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command = ["openssl", "req", *kind, *subject, "-keyout", str(new.key), "-out", str(new.certificate)]
    subprocess.run(command, check=True, capture_output=True)
    new.key.rename(folder / "tls.key")
    new.certificate.rename(folder / "tls.crt")
    return TlsFiles(folder / "tls.crt", folder / "tls.key")


class Client:
    """One connection, for one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def to(cls, gateway: RunningGateway, files: TlsFiles) -> Client:
        context = ssl.create_default_context(cadata=files.certificate.read_text())
        return cls(*await asyncio.open_connection("127.0.0.1", gateway.port, ssl=context, server_hostname="localhost"))

    @property
    def organisation(self) -> str:
        """Of the certificate that the gateway showed."""
        shown = self._writer.get_extra_info("peercert")
        return str(dict(pair for part in shown["subject"] for pair in part)["organizationName"])

    async def ask(self) -> bytes:
        self._writer.write(raw_request())
        return await self._reader.readuntil(b"0\r\n\r\n")

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def test_requests_and_streams_work_over_tls(tmp_path: Path) -> None:
    files = certificate(tmp_path, "one")
    async with (
        fake_upstream(stream([b'{"n":1}\n', b'{"n":2}\n'])) as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), tls=files) as gateway,
    ):
        client = await Client.to(gateway, files)
        for _ in range(3):  # the first connects to the runner, the others reuse the connection
            said = await client.ask()
            assert said.startswith(b"HTTP/1.1 200 ")
            assert b'{"n":2}' in said
        await client.close()
    assert len(up.calls) == 3


async def test_new_connections_get_a_renewed_certificate_and_open_ones_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_changes, "CHECK_INTERVAL", 0.0)

    files = certificate(tmp_path, "one")
    async with (
        fake_upstream(stream([b'{"n":1}\n'])) as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), tls=files) as gateway,
    ):
        old = await Client.to(gateway, files)
        assert old.organisation == "one"
        new = await Client.to(gateway, certificate(tmp_path, "two"))
        assert new.organisation == "two"
        for client in (old, new):
            assert (await client.ask()).startswith(b"HTTP/1.1 200 ")
        files.key.write_text("half writ")
        third = await Client.to(gateway, files)
        assert third.organisation == "two", "what cannot be used changes nothing"
        for client in (old, new, third):
            await client.close()


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
async def test_plain_http_on_a_tls_port_gets_an_error_response(tmp_path: Path, method: str) -> None:
    files = certificate(tmp_path, "one")
    async with (
        fake_upstream() as up,
        running_gateway(MemoryDirectory.of(entry("tiny", up.port)), tls=files) as gateway,
    ):
        answer = await gateway.http.request(method, "/api/chat", json={"model": "tiny"})
        assert (answer.status_code, answer.headers["connection"]) == (400, "close")
        assert "this port requires HTTPS" in answer.text or method == "HEAD"
        await (await Client.to(gateway, files)).close()
        await auntil(lambda: not gateway.server.server_state.connections)
    assert not up.calls


async def test_other_bytes_on_a_tls_port_do_no_harm(tmp_path: Path) -> None:
    files = certificate(tmp_path, "one")
    async with running_gateway(MemoryDirectory(), tls=files) as gateway:
        for nonsense in (
            b"\x16\x03\x01\xff\xff" + b"x" * 100_000,
            b"SSH-2.0-x\r\n",
            b"DELETE /api/delete HTTP/1.1\r\n",
        ):
            reader, writer = await gateway.connect()
            writer.write(nonsense)
            assert b"HTTP" not in await asyncio.wait_for(reader.read(), 10)
            writer.close()
        await (await Client.to(gateway, files)).close()


async def test_connections_in_their_tls_handshake_count_against_the_limit(tmp_path: Path) -> None:
    files = certificate(tmp_path, "one")
    limits = Limits(connections=2)
    async with (
        contextlib.AsyncExitStack() as stack,
        running_gateway(MemoryDirectory.of(entry("tiny")), tls=files, limits=limits) as gateway,
    ):
        silent = [await gateway.connect() for _ in range(2 + ERROR_CONNECTIONS)]
        for _, writer in silent:
            stack.callback(writer.close)
        await auntil(lambda: gateway.server.open_connections == len(silent))
        reader, writer = await gateway.connect()
        stack.callback(writer.close)
        assert await asyncio.wait_for(reader.read(), 10) == b"", "one more is closed"
        for _, writer in silent[:2]:
            writer.close()
        await auntil(lambda: gateway.server.open_connections == len(silent) - 2)
        client = await Client.to(gateway, files)
        assert gateway.server.open_connections == len(silent) - 1, "a finished handshake counts once"
        await client.close()
        for _, writer in silent[2:]:
            writer.close()
        await auntil(lambda: gateway.server.open_connections == 0)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 100])
async def test_a_failed_handshake_counts_until_its_connection_ends(tmp_path: Path, sent: bytes) -> None:
    files = certificate(tmp_path, "one")
    gc.disable()  # the count must not depend on the cycle collector, which the gateway runs rarely
    try:
        async with running_gateway(MemoryDirectory(), tls=files) as gateway:
            for _ in range(3):
                reader, writer = await gateway.connect()
                await auntil(lambda: gateway.server.open_connections == 1)
                writer.write(sent)
                writer.write_eof()
                await asyncio.wait_for(reader.read(), 10)
                writer.close()
                await auntil(lambda: gateway.server.open_connections == 0)
    finally:
        gc.enable()


def test_unusable_certificate_files_prevent_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="CORRAL_TLS_CERT='/nowhere'"):
        server_context(TlsFiles(Path("/nowhere"), Path("/nowhere")))
    files = certificate(tmp_path, "one")
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(InvalidSetting, match="cannot be used"):
        server_context(TlsFiles(files.certificate, certificate(other, "two").key))


def test_a_certificate_without_a_key_is_rejected() -> None:
    with pytest.raises(InvalidSetting, match="must be set together"):
        GatewayConfig.from_environment({"CORRAL_TLS_CERT": "/tls.crt"})
    assert GatewayConfig.from_environment({}).tls is None
