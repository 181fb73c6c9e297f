"""API keys of namespaces on a real API server, with the permissions that the chart grants the gateways."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml

from corral_core.contracts.api_keys import generate_key
from tests.cluster.api import at
from tests.cluster.cluster import Cluster
from tests.cluster.helm import NAMESPACE, RELEASE, Helm, rendered
from tests.cluster.installation import Gateway, Installation
from tests.support.waiting import until

pytestmark = [pytest.mark.cluster, pytest.mark.process]
SECRET = "corral-api-keys"
ACCOUNT = f"{RELEASE}-corral-gateway"


@pytest.fixture
def account(cluster: Cluster, helm: Helm, tmp_path: Path) -> Iterator[Path]:
    """Create the gateways' account with its role; return a kubeconfig of it."""
    objects = rendered(helm, {"gateway": {"apiKeys": {"namespaceSecret": SECRET}}})
    kinds = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding")
    made = [each for each in objects if each["kind"] in kinds and str(at(each, "metadata", "name")).endswith(ACCOUNT)]
    assert sorted(str(each["kind"]) for each in made) == sorted(kinds)
    text = "\n---\n".join(json.dumps(each) for each in made)
    cluster.kubectl("apply", "-n", NAMESPACE, "--server-side", "-f", "-", input=text)
    token = cluster.kubectl("-n", NAMESPACE, "create", "token", ACCOUNT).stdout.strip()
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    user = config["contexts"][0]["context"]["user"]
    config["users"] = [{"name": user, "user": {"token": token}}]
    path = tmp_path / "gateway.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    yield path
    cluster.kubectl("delete", "-n", NAMESPACE, "--wait=false", "-f", "-", input=text)


def store(cluster: Cluster, namespace: str, *names: str, secret: str = SECRET) -> list[str]:
    """Write the Secret with a new key of each name; return the keys."""
    made = [(name, *generate_key(namespace)) for name in names]
    content = yaml.safe_dump({"keys": [{"name": name, "sha256": digest} for name, _, digest in made]})
    metadata = {"name": secret, "namespace": namespace}
    manifest = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"keys.yaml": content}}
    cluster.kubectl("apply", "--server-side", "-f", "-", input=json.dumps(manifest))
    return [key for _, key, _ in made]


def status(gateway: Gateway, key: str) -> int:
    return httpx.get(f"{gateway.url}/api/tags", headers={"authorization": f"Bearer {key}"}, trust_env=False).status_code


def test_the_chart_lets_gateways_read_the_secrets_of_keys_and_no_others(
    cluster: Cluster, corral: Installation, account: Path
) -> None:
    [first] = store(cluster, corral.namespace, "ci")
    [elsewhere] = store(cluster, corral.namespace, "ci", secret="another-name")
    gateway = corral.start_gateway(KUBECONFIG=str(account), CORRAL_API_KEYS_SECRET=SECRET, CORRAL_WATCH_NAMESPACES="")
    until(lambda: status(gateway, first) == 200, 20, what="the first key", interval=0.1)
    assert status(gateway, elsewhere) == 401
    [second, third] = store(cluster, corral.namespace, "ci", "laptop")
    until(lambda: status(gateway, second) == status(gateway, third) == 200, 20, what="the new keys", interval=0.1)
    assert status(gateway, first) == 401
    cluster.kubectl("-n", corral.namespace, "delete", "secret", SECRET)
    until(lambda: status(gateway, second) == 401, 20, what="the end of the keys", interval=0.1)
    for arguments in (("get", "secrets", "-A"), ("-n", corral.namespace, "get", "secrets"), ("get", "pods", "-A")):
        denied = cluster.kubectl("--as", f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}", *arguments, check=False)
        assert "forbidden" in denied.stderr
    denied = cluster.kubectl(
        "--as",
        f"system:serviceaccount:{NAMESPACE}:{ACCOUNT}",
        "-n",
        corral.namespace,
        "get",
        "secret",
        "another-name",
        check=False,
    )
    assert "forbidden" in denied.stderr
