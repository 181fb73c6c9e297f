"""A second installation of the operator for the same namespaces leaves them to the first one, and says so."""

from __future__ import annotations

import pytest

from tests.cluster.api import Object, at, condition
from tests.cluster.installation import POLL_INTERVAL, Installation
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]


def test_a_second_installation_does_nothing_until_the_first_one_has_ended(corral: Installation) -> None:
    first = corral.start_operator("first", CORRAL_LEASE_NAME="one", CORRAL_RUNNER_CPU="100m")
    corral.add("tiny")
    corral.wait_phase("tiny", "Idle")
    second = corral.start_operator("second", CORRAL_LEASE_NAME="two", CORRAL_RUNNER_CPU="200m")
    until(lambda: notice(corral, "tiny"), 60, what="the condition", interval=POLL_INTERVAL)
    assert f"{corral.namespace}/one" in str(notice(corral, "tiny")["message"])
    assert "second_installation" in second.text()

    corral.add("later")
    corral.wait_phase("later", "Idle")
    until(lambda: notice(corral, "later"), 60, what="the condition of the later Model", interval=POLL_INTERVAL)
    before = {name: corral.deployment(name) for name in ("tiny", "later")}
    assert [cpu(each) for each in before.values()] == ["100m", "100m"]
    corral.edit("tiny", system="Be kind.")
    until(lambda: corral.deployment("tiny") != before["tiny"], 30, what="the edit", interval=POLL_INTERVAL)
    assert [cpu(corral.deployment(name)) for name in before] == ["100m", "100m"]
    assert at(corral.deployment("later"), "metadata", "generation") == at(before["later"], "metadata", "generation")

    assert first.stop() == 0
    until(lambda: cpu(corral.deployment("tiny")) == "200m", 60, what="the second's Deployment", interval=POLL_INTERVAL)
    until(lambda: not notice(corral, "tiny"), 60, what="the end of the condition", interval=POLL_INTERVAL)
    assert second.alive


def notice(corral: Installation, name: str) -> Object:
    return condition(corral.model(name), "SecondInstallation")


def cpu(deployment: Object | None) -> object:
    return at(deployment, "spec", "template", "spec", "containers", 0, "resources", "requests", "cpu")
