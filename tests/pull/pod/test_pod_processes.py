"""The processes of resolver and puller pods, against a registry over real HTTP."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from corral_core.contracts.pull_status import PullFailure, PullStatus, decode_failure, decode_pulled
from corral_core.contracts.termination_message import decode_report
from corral_core.sources.snapshot import FileRole, read_snapshot, snapshot_file, snapshot_id
from corral_server.pull.download.ranges import RangeSet
from corral_server.pull.download.state import load_state
from tests.support.ollama_registry import OllamaRegistry, ollama_registry, padded_weights, sha256
from tests.support.ports import free_ports
from tests.support.pulled_store import publish
from tests.support.tiny_model import write_tiny_model
from tests.support.waiting import until

SIZE = 12 * 2**20


@dataclass(frozen=True)
class Pod:
    """A place for the processes of one Model's pods."""

    folder: Path
    registry: OllamaRegistry
    port: int

    @property
    def store(self) -> Path:
        return self.folder / "store"

    def inspect(self, *, check: bool = True, **settings: str) -> str:
        """Run the resolver of a Model with the registry's source; return its termination message."""
        document = {"name": "tiny", "namespace": "lab", "spec": {"source": self.registry.uri()}}
        with self.process("inspect", CORRAL_MODEL=json.dumps(document), **settings) as process:
            assert (process.wait(60) == 0) == check
        return self.message()

    @contextmanager
    def pulling(self, pin: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        task = [{"uri": self.registry.uri(), "pin": pin}]
        own = {"CORRAL_PULL": json.dumps(task), "CORRAL_PULL_BYTES": str(SIZE), "CORRAL_STORE": str(self.store)}
        with self.process("main", **(own | settings)) as process:
            yield process

    @contextmanager
    def process(self, module: str, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        environment = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "PYTHONPATH")},
            "CORRAL_PLAIN_HTTP_HOSTS": self.registry.host,
            "CORRAL_TERMINATION_LOG": str(self.folder / "message"),
            "CORRAL_HOST": "127.0.0.1",
            "CORRAL_PORT": str(self.port),
            "CORRAL_MODEL_IDENTITY": "lab/tiny uid",
            **settings,
        }
        command = [sys.executable, "-m", f"corral_server.pull.pod.{module}"]
        with (self.folder / "log").open("wb") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
            try:
                yield process
            finally:
                process.kill()
                process.wait()

    def message(self) -> str:
        return (self.folder / "message").read_text()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def progress(self) -> PullStatus | None:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)) as connection:
            try:
                connection.request("GET", "/progress")
                return PullStatus.from_json(json.loads(connection.getresponse().read()))
            except OSError:
                return None

    def completed(self) -> int:
        status = self.progress()
        return status.completed if status is not None else 0


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Pod]:
    with ollama_registry() as registry:
        registry.push(padded_weights(write_tiny_model(tmp_path), SIZE))
        (port,) = free_ports(1)
        yield Pod(tmp_path, registry, port)


def pin(pod: Pod) -> str:
    return "sha256:" + sha256(pod.registry.manifests["/v2/library/tiny/manifests/latest"])


def saved(pod: Pod) -> int:
    """Return the bytes that the states of partial downloads name."""
    return sum(state.done().size for path in pod.store.glob("partial/*.json") if (state := load_state(path)))


def snapshots(pod: Pod) -> Mapping[str, str]:
    return {pod.registry.uri(): snapshot_id(pod.registry.uri(), pin(pod))}


def test_the_resolver_reports_metadata_pin_and_size_and_downloads_no_weights(pod: Pod) -> None:
    report = decode_report(pod.inspect())
    assert (report.metadata.family, report.metadata.source) == ("llama", pod.registry.uri())
    assert report.metadata.dimensions is not None
    assert {one.parallel for one in report.metadata.dimensions.compute_buffers} == {1, 4}
    assert report.resolved is not None
    assert report.resolved.pins == (pin(pod),)
    assert SIZE <= report.resolved.total < SIZE + 4096
    assert pod.registry.sent < SIZE // 2


def test_a_source_that_was_resolved_before_keeps_its_pin(pod: Pod, tmp_path: Path) -> None:
    first = pin(pod)
    pod.registry.manifests[f"/v2/library/tiny/manifests/{first}"] = pod.registry.manifests[
        "/v2/library/tiny/manifests/latest"
    ]
    pod.registry.push(padded_weights(write_tiny_model(tmp_path, seed=2), SIZE))
    assert pin(pod) != first
    report = decode_report(pod.inspect(CORRAL_PINS=json.dumps({pod.registry.uri(): first})))
    assert report.resolved is not None
    assert report.resolved.pins == (first,)


def test_the_resolver_says_why_a_source_cannot_be_resolved(pod: Pod) -> None:
    pod.registry.manifests.clear()
    message = pod.inspect(check=False)
    assert "tiny" in message
    assert len(message) <= 2000


def test_the_puller_shows_its_progress_and_ends_with_its_snapshots(pod: Pod) -> None:
    pod.registry.limit = SIZE // 2
    with pod.pulling(pin(pod)) as process:
        until(lambda: pod.completed() > SIZE // 4, 30, what="half of the weights")
        status = pod.progress()
        assert status is not None
        assert (status.total, status.stage) == (SIZE, "pulling")
        pod.registry.go_on.set()
        assert process.wait(60) == 0, pod.log()
    (found,) = decode_pulled(pod.message())
    assert found == snapshots(pod)[pod.registry.uri()]
    snapshot = read_snapshot(pod.store, found)
    assert snapshot_file(pod.store, found, snapshot.files[0].name).stat().st_size == SIZE


def test_a_puller_that_was_killed_continues_where_it_stopped(pod: Pod) -> None:
    pod.registry.limit = SIZE // 2
    with pod.pulling(pin(pod)) as process:
        until(lambda: pod.completed() > SIZE // 4, 30, what="half of the weights")
        until(lambda: any(pod.store.glob("partial/*")), 30, what="a partial file")
        process.send_signal(signal.SIGKILL)
        process.wait()
    pod.registry.go_on.set()
    with pod.pulling(pin(pod)) as process:
        assert process.wait(60) == 0, pod.log()
    assert decode_pulled(pod.message()) == tuple(snapshots(pod).values())


def test_a_puller_that_was_killed_asks_only_for_what_it_has_not_saved(pod: Pod) -> None:
    def saved() -> RangeSet:
        states = [load_state(path) for path in pod.store.glob("partial/*.json")]
        return next((state.done() for state in states if state is not None), RangeSet())

    pod.registry.allow(SIZE // 2)
    with pod.pulling(pin(pod)) as process:
        until(lambda: saved().size > SIZE // 4, 30, what="a saved state")
        process.send_signal(signal.SIGKILL)
        process.wait()
    missing, asked = saved().missing(SIZE), len(pod.registry.ranges)
    pod.registry.go_on.set()
    with pod.pulling(pin(pod)) as process:
        assert process.wait(60) == 0, pod.log()
    again = pod.registry.ranges[asked:]
    assert again
    assert all(any(start <= first < last <= end for start, end in missing) for first, last in again), (missing, again)


def test_a_pull_of_what_the_store_has_makes_no_request(pod: Pod) -> None:
    for _ in range(2):
        before = len(pod.registry.requests)
        with pod.pulling(pin(pod)) as process:
            assert process.wait(60) == 0, pod.log()
    assert len(pod.registry.requests) == before


def test_on_the_claim_of_one_model_what_no_runner_uses_is_removed(pod: Pod) -> None:
    old, used = (
        publish(pod.store, name, {write_tiny_model(pod.folder, seed=seed): FileRole.WEIGHTS}).id
        for name, seed in (("hf://a/old", 3), ("hf://a/used", 4))
    )
    for path in (pod.store, *pod.store.rglob("*")):
        os.utime(path, (1, 1), follow_symlinks=False)
    with pod.pulling(pin(pod), CORRAL_KEEP_SNAPSHOTS=used) as process:
        assert process.wait(60) == 0, pod.log()
    left = {path.name for path in (pod.store / "snapshots").iterdir() if not path.name.startswith(".")}
    assert left == {used, *snapshots(pod).values()}
    assert old not in left
    assert len(list((pod.store / "blobs").iterdir())) == 2


def test_a_shared_store_keeps_all_sources(pod: Pod) -> None:
    other = publish(pod.store, "hf://a/other", {write_tiny_model(pod.folder, seed=3): FileRole.WEIGHTS}).id
    for path in (pod.store, *pod.store.rglob("*")):
        os.utime(path, (1, 1), follow_symlinks=False)
    with pod.pulling(pin(pod)) as process:
        assert process.wait(60) == 0, pod.log()
    assert read_snapshot(pod.store, other).uri == "hf://a/other"


def test_a_pin_that_is_gone_fails_the_model(pod: Pod) -> None:
    with pod.pulling("sha256:" + "0" * 64) as process:
        assert process.wait(60) == 1
    assert decode_failure(pod.message())[0] is PullFailure.FAILED


def test_wrong_content_is_not_downloaded_again_by_the_next_puller(pod: Pod) -> None:
    (digest,) = (name for name, data in pod.registry.blobs.items() if len(data) == SIZE)
    pod.registry.blobs[digest] = pod.registry.blobs[digest][:-1] + b"x"
    messages, requests = [], []
    for _ in range(2):
        with pod.pulling(pin(pod)) as process:
            assert process.wait(60) == 1
        messages.append(decode_failure(pod.message()))
        requests.append(len(pod.registry.requests))
    assert messages[0] == messages[1]
    assert messages[0][0] is PullFailure.FAILED
    assert "It is downloaded again after" in messages[0][1]
    assert requests[0] == requests[1]


def test_a_pull_continues_after_a_long_time_on_the_claim_of_one_model(pod: Pod) -> None:
    pod.registry.limit = SIZE // 2
    with pod.pulling(pin(pod), CORRAL_KEEP_SNAPSHOTS="") as process:
        until(lambda: saved(pod) > 0, 30, what="a saved state")
        process.kill()
        process.wait()
    for path in (pod.store, *pod.store.rglob("*")):
        os.utime(path, (1, 1), follow_symlinks=False)
    pod.registry.go_on.set()
    with pod.pulling(pin(pod), CORRAL_KEEP_SNAPSHOTS="") as process:
        assert process.wait(60) == 0, pod.log()
    collected = [json.loads(line) for line in pod.log().splitlines() if '"collected"' in line]
    assert [event["bytes"] for event in collected] == [0], "nothing that was pulled before"


def test_a_server_that_does_not_answer_is_tried_again(pod: Pod) -> None:
    (closed,) = free_ports(1)
    task = json.dumps([{"uri": f"ollama://127.0.0.1:{closed}/library/tiny:latest", "pin": ""}])
    with pod.pulling("", CORRAL_PULL=task, CORRAL_PLAIN_HTTP_HOSTS=f"127.0.0.1:{closed}") as process:
        assert process.wait(120) == 1
    assert decode_failure(pod.message())[0] is PullFailure.RETRYING


@pytest.mark.parametrize("value", ["", "[]", "{", '["hf://a/b"]', '[{"uri": 1, "pin": ""}]'])
def test_a_task_that_is_not_one_is_an_error(pod: Pod, value: str) -> None:
    with pod.pulling("", CORRAL_PULL=value) as process:
        assert process.wait(30) == 1
    assert "CORRAL_PULL" in pod.message()


def test_weights_that_do_not_fit_into_the_limit_of_the_store_fail_before_the_download(pod: Pod) -> None:
    with pod.pulling(pin(pod), CORRAL_STORE_LIMIT=str(SIZE // 2)) as process:
        assert process.wait(60) == 1
    reason, text = decode_failure(pod.message())
    assert reason is PullFailure.STORE_FULL
    assert "spec.cache.size" in text
    assert pod.registry.sent < SIZE // 2


def test_weights_that_fit_into_the_limit_of_the_store_are_pulled(pod: Pod) -> None:
    with pod.pulling(pin(pod), CORRAL_STORE_LIMIT=str(SIZE + 2**20)) as process:
        assert process.wait(60) == 0, pod.log()
