"""``kubectl corral`` on a real API server: it reads Models and reaches a gateway through the API server's proxy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import httpx
import pytest

from tests.cluster.child_processes import minimal_environment
from tests.cluster.cluster import Cluster
from tests.cluster.installation import START_TIMEOUT, Gateway, Installation
from tests.cluster.test_peers import own_address
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]


def run(corral: Installation, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the plugin in the test's namespace."""
    extra = {"KUBECONFIG": str(corral.cluster.kubeconfig), **environment}
    command = [sys.executable, "-m", "corral_kubectl", *arguments, "-n", corral.namespace]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, check=False, env=minimal_environment(extra=extra)
    )


def output(corral: Installation, *arguments: str, **environment: str) -> str:
    """Run the plugin and return its standard output; it must not fail."""
    done = run(corral, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def serve(cluster: Cluster, namespace: str, name: str, gateway: Gateway) -> None:
    """Create a Service of this name in front of the gateway.

    The API server passes requests on to addresses of pods only, so a pod that is never scheduled gets the gateway's.
    """
    core = f"/api/v1/namespaces/{namespace}"
    gated = {
        "schedulingGates": [{"name": "test.corral.dev/never"}],
        "containers": [{"name": "gateway", "image": "none"}],
    }
    cluster.api.create(f"{core}/pods", {"metadata": {"name": name}, "spec": gated})
    address = {"podIP": gateway.host, "podIPs": [{"ip": gateway.host}]}
    cluster.api.patch(f"{core}/pods/{name}/status", {"status": address})
    port: Mapping[str, object] = {"name": "http", "port": 11434}
    cluster.api.create(f"{core}/services", {"metadata": {"name": name}, "spec": {"ports": [port]}})
    pod = {"kind": "Pod", "name": name, "namespace": namespace}
    subset = {"addresses": [{"ip": gateway.host, "targetRef": pod}], "ports": [{**port, "port": gateway.port}]}
    cluster.api.create(f"{core}/endpoints", {"metadata": {"name": name}, "subsets": [subset]})


def test_a_model_is_loaded_explained_and_unloaded_through_the_api_server(corral: Installation) -> None:
    corral.start_operator(CORRAL_LEASE_NAME="corral-operator")
    serve(corral.cluster, corral.namespace, "corral", corral.start_gateway(host=own_address()))
    corral.add("tiny", names=["small:1b"])
    corral.wait_phase("tiny", "Idle")

    assert "`kubectl corral load tiny` loads it now" in output(corral, "why", "tiny")
    assert "is loaded" in output(corral, "load", "small:1b")
    until(lambda: corral.phase("tiny") == "Ready", START_TIMEOUT, what="the phase Ready", interval=0.1)
    head, line = output(corral, "status").splitlines()
    assert head.split()[:3] == ["NAME", "PHASE", "READY"]
    assert line.split()[:4] == ["tiny", "Ready", "True", "1/1"]
    explained = output(corral, "why", "tiny")
    assert "Nothing: it serves requests." in explained
    assert "Loading (Model)" in explained, "its Events are shown"
    assert "model-tiny" in explained, "its pods are shown"

    assert "is unloaded" in output(corral, "unload", "tiny")
    corral.wait_phase("tiny", "Idle")
    refused = run(corral, "load", "nothing")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "has no Model nothing" in refused.stderr


def test_created_keys_open_the_gateway_and_deleted_ones_do_not(corral: Installation) -> None:
    corral.add("tiny", suspend=True)
    gateway = corral.start_gateway(host=own_address(), CORRAL_API_KEYS_SECRET="corral-api-keys")
    serve(corral.cluster, corral.namespace, "corral", gateway)
    one, two = (output(corral, "keys", "create", name, "--allow", "tiny").strip() for name in ("one", "two"))
    until(lambda: status(gateway, one) == 200 and status(gateway, two) == 200, 60, what="the keys")
    listed = output(corral, "keys", "list")
    assert [line.split()[:2] for line in listed.splitlines()[1:]] == [["one", "tiny"], ["two", "tiny"]]
    assert one not in listed

    service = ("--service", f"{corral.namespace}/corral")
    assert "needs an API key" in run(corral, "load", "tiny", *service).stderr
    direct = run(corral, "load", "tiny", "--gateway", gateway.url, OLLAMA_API_KEY=two)
    assert "is suspended" in direct.stderr, "the gateway has accepted the key"

    output(corral, "keys", "delete", "one")
    until(lambda: status(gateway, one) == 401, 60, what="the end of the key")
    assert status(gateway, two) == 200


def status(gateway: Gateway, key: str) -> int:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.get(f"{gateway.url}/api/tags", headers=headers, timeout=30, trust_env=False).status_code
