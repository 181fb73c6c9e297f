"""Pull of whole models from hubs and web servers into a store, with every part of the puller."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from corral_core.base.errors import SourceError
from corral_core.sources.locate import WeightsRoots, locate_weights, weight_parts
from corral_core.sources.snapshot import FileRole, snapshot_file
from corral_core.sources.uri import parse_source
from corral_server.pull.credentials import NO_CREDENTIALS, Credentials
from corral_server.pull.download.downloader import Downloader
from corral_server.pull.download.options import DownloadOptions
from corral_server.pull.http.settings import NetworkSettings
from corral_server.pull.network import NetworkTransports
from corral_server.pull.puller import Puller
from corral_server.pull.store import WeightsStore
from tests.support.gguf_files import gguf_bytes
from tests.support.gguf_split import split_gguf
from tests.support.hub_repository import Repository
from tests.support.hub_server import Answer, HubServer, Seen
from tests.support.tiny_model import write_tiny_model

NAME = "org/Tiny-GGUF"
PARTS = DownloadOptions(first_part=64 * 1024, min_part=64 * 1024, max_part=64 * 1024, first_delay=0.01)


@dataclass
class Pulled:
    """A store, and the puller that fills it from the hub of the test."""

    store: Path
    puller: Puller


def puller(store: Path, hub: HubServer, credentials: Credentials = NO_CREDENTIALS) -> Pulled:
    network = NetworkSettings(plain_http_hosts=frozenset({"127.0.0.1", "localhost"}))
    endpoints = {"hf": hub.url, "modelscope": hub.url}
    transports = NetworkTransports(network, credentials, endpoints=endpoints)
    weights = WeightsStore(store)
    return Pulled(store, Puller(weights, transports, Downloader(weights, transports, options=PARTS)))


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    """Return a GGUF file of a tiny model with some data after it, so that it is read in several ranges."""
    return write_tiny_model(tmp_path).read_bytes() + os.urandom(300_000)


@pytest.fixture
def repository(hub: HubServer, weights: bytes) -> Repository:
    made = hub.add(Repository(NAME))
    files = {"tiny-Q4_K_M.gguf": weights, "mmproj-F16.gguf": gguf_bytes({"general.architecture": "clip"})}
    made.refs["master"] = made.commit({**files, "system": b"Be brief."}, branch="main")
    return made


@pytest.mark.parametrize("scheme", ["hf", "modelscope"])
def test_a_model_of_a_hub_is_pulled_once(
    hub: HubServer, repository: Repository, weights: bytes, tmp_path: Path, scheme: str
) -> None:
    pulled = puller(tmp_path / "store", hub)
    uri = f"{scheme}://{NAME}"
    snapshot = pulled.puller.pull(uri)
    assert snapshot.pin == repository.refs["main"]
    assert [(file.name, file.role) for file in snapshot.files] == [
        ("tiny-Q4_K_M.gguf", FileRole.WEIGHTS),
        ("mmproj-F16.gguf", FileRole.PROJECTOR),
    ]
    assert snapshot.defaults.system == ("Be brief." if scheme == "hf" else "")
    roots = WeightsRoots(store=pulled.store, snapshots={uri: snapshot.id})
    path = locate_weights(parse_source(uri), roots)
    assert path.read_bytes() == weights
    assert path.resolve().name == f"sha256-{hashlib.sha256(weights).hexdigest()}"
    requests = len(hub.seen) + len(hub.content_seen)
    assert pulled.puller.pull(uri, pin=snapshot.pin) == snapshot
    assert len(hub.seen) + len(hub.content_seen) == requests


def test_the_same_weights_of_two_hubs_and_a_url_are_one_blob_and_one_download(
    hub: HubServer, repository: Repository, weights: bytes, tmp_path: Path
) -> None:
    pulled = puller(tmp_path / "store", hub)
    pulled.puller.pull(f"hf://{NAME}")
    ranges = len([request for request in hub.content_seen if request.headers.get("range") != "bytes=0-0"])
    pulled.puller.pull(f"modelscope://{NAME}")
    url = f"{hub.url}/{NAME}/resolve/main/tiny-Q4_K_M.gguf".replace("http://", "https://")
    snapshot = pulled.puller.pull(url)
    assert snapshot.pin == hashlib.sha256(weights).hexdigest()
    assert len(list((pulled.store / "blobs").iterdir())) == 2
    headers_only = [request.headers.get("range", "") for request in hub.content_seen[ranges:]]
    assert sum(int(end) - int(start) for start, _, end in (r[6:].partition("-") for r in headers_only)) < len(weights)


def test_all_parts_of_a_split_file(hub: HubServer, tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path)
    parts = split_gguf(source, tmp_path, parts=3)
    repository = hub.add(Repository("org/Split"))
    names = [f"Q8_0/m-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    repository.commit({name: part.read_bytes() for name, part in zip(names, parts, strict=True)}, branch="main")
    pulled = puller(tmp_path / "store", hub)
    uri = "hf://org/Split:Q8_0"
    snapshot = pulled.puller.pull(uri)
    first = locate_weights(parse_source(uri), WeightsRoots(store=pulled.store, snapshots={uri: snapshot.id}))
    assert [part.read_bytes() for part in weight_parts(first)] == [part.read_bytes() for part in parts]


def test_signatures_that_expire_in_the_middle_are_renewed(
    hub: HubServer, repository: Repository, weights: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = hub.content

    def expiring(request: Seen) -> Answer:
        made = answer(request)
        hub.signature = f"s{len(hub.content_seen)}"
        return made

    monkeypatch.setattr(hub, "content", expiring)
    pulled = puller(tmp_path / "store", hub)
    snapshot = pulled.puller.pull(f"hf://{NAME}")
    assert snapshot_file(pulled.store, snapshot.id, "tiny-Q4_K_M.gguf").read_bytes() == weights


def test_content_that_is_not_the_listed_one_is_not_published(
    hub: HubServer, repository: Repository, weights: bytes, tmp_path: Path
) -> None:
    pulled = puller(tmp_path / "store", hub)
    digest = hashlib.sha256(weights).hexdigest()
    changed = bytearray(weights)
    changed[-1] ^= 1
    hub.replaced[digest] = bytes(changed)
    with pytest.raises(SourceError, match="sends another file than the source names"):
        pulled.puller.pull(f"hf://{NAME}")
    assert not (pulled.store / "blobs" / f"sha256-{digest}").exists()


def test_a_gated_repository_is_pulled_with_the_token_of_a_secret(
    hub: HubServer, repository: Repository, weights: bytes, tmp_path: Path
) -> None:
    hub.tokens.add("hf_reader")
    repository.gated_for = frozenset({"hf_reader"})
    with pytest.raises(SourceError, match="Accept its licence"):
        puller(tmp_path / "store", hub).puller.pull(f"hf://{NAME}")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "HF_TOKEN").write_text("hf_reader\n")
    pulled = puller(tmp_path / "store", hub, Credentials.from_folder(secret))
    snapshot = pulled.puller.pull(f"hf://{NAME}")
    assert snapshot_file(pulled.store, snapshot.id, "tiny-Q4_K_M.gguf").read_bytes() == weights
    stored = b"".join(path.read_bytes() for path in pulled.store.rglob("*.json"))
    assert b"hf_reader" not in stored
