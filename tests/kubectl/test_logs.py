"""Which container's log ``kubectl corral logs`` prints."""

from __future__ import annotations

import pytest

from corral_kubectl.logs import LogSource, log_source
from corral_kubectl.models import CommandFailed
from tests.kubectl.samples import container, pod

RUNNING = [container("runner", running={})]


def test_a_runner_goes_before_the_pods_that_read_and_pull_the_weights() -> None:
    pods = [pod("info", "inspector"), pod("pull", "puller"), pod("run", containerStatuses=RUNNING)]
    assert log_source(pods, "llama") == LogSource("run", "runner")
    assert log_source(pods[:2], "llama") == LogSource("pull", "puller")
    assert log_source(pods[:1], "llama") == LogSource("info", "inspector")


def test_of_runners_it_is_the_newest_that_has_started() -> None:
    starting = [container("runner", waiting={"reason": "ContainerCreating"})]
    pods = [
        pod("old", created=300, containerStatuses=RUNNING),
        pod("new", created=60, containerStatuses=RUNNING),
        pod("newest", created=5, containerStatuses=starting),
    ]
    assert log_source(pods, "llama").pod == "new"


def test_of_a_runner_that_pulls_it_is_the_container_that_pulls() -> None:
    pulling = pod("run", initContainerStatuses=[container("puller", running={})])
    pulled = pod("run", initContainerStatuses=[container("puller", terminated={"exitCode": 0})])
    assert log_source([pulling], "llama").container == "puller"
    assert log_source([pulled], "llama").container == "runner"


def test_without_a_pod_the_error_names_the_command_that_explains_it() -> None:
    with pytest.raises(CommandFailed, match="kubectl corral why llama"):
        log_source([], "llama")
