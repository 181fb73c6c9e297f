"""The Helm chart on a real API server, which accepts every object; the chart rejects every misspelt value.

Server-side dry runs check each object against its schema, unknown fields included, and against admission.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

import pytest
import yaml

from corral_server.gateway.config import parse_weights
from tests.cluster.api import MODELS, ApiError, Object, at
from tests.cluster.cluster import CRDS, Cluster
from tests.cluster.control_plane import ControlPlane
from tests.cluster.helm import CHART, FULLNAME, Helm, rendered, variable
from tests.support.waiting import until

pytestmark = pytest.mark.cluster

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/models.corral.dev"

VALUES: Mapping[str, Mapping[str, object]] = {
    "defaults": {},
    "one namespace": {"watchNamespaces": ["default"], "networkPolicy": {"enabled": False}, "crds": {"install": False}},
    "scaled": {
        "operator": {
            "replicas": 2,
            "topologySpreadConstraints": [
                {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule"}
            ],
        },
        "gateway": {"autoscaling": {"enabled": True}, "podDisruptionBudget": {"minAvailable": "50%"}},
        "settings": {
            "origins": ["https://chat.example.com"],
            "keepAlive": -1,
            "maxLoadedModels": 4,
            "contextLength": 1048576,
            "flashAttention": "on",
            "threads": 4,
            "speculation": 8,
            "evictionTimeout": "10m",
            "namespaceWeights": {"team-a": 3, "batch": 0.5},
            "lockMemory": True,
        },
    },
    "ingress": {
        "ingress": {
            "enabled": True,
            "className": "nginx",
            "host": "models.example.com",
            "tlsSecret": "tls",
            "path": "/llm",
        },
        "service": {"type": "NodePort", "annotations": {"team": "models"}},
    },
    "routes and monitors": {
        "httpRoute": {
            "enabled": True,
            "parentRefs": [{"name": "edge", "namespace": "default"}],
            "hostnames": ["models.example.com"],
            "pathPrefix": "/llm",
        },
        "monitoring": {
            "enabled": True,
            "interval": "30s",
            "labels": {"release": "prometheus"},
            "from": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
            "rules": {"enabled": True},
            "dashboard": {"enabled": True, "annotations": {"grafana_folder": "Models"}},
        },
        "tracing": {"endpoint": "http://collector.monitoring:4318"},
        "networkPolicy": {"runnersFrom": [{"namespaceSelector": {"matchLabels": {"name": "debugging"}}}]},
    },
    "guarded": {
        "models": {
            "namespaces": ["default"],
            "sources": ["hf://*"],
            "profiles": [{"sources": ["*:70b"], "spec": {"keepAlive": "30m"}}],
            "blobs": {"repository": "registry.example:5000/corral/blobs", "secret": "push", "sourceSecret": "pull"},
        },
        "gateway": {
            "apiKeys": {"secret": "corral-keys", "key": "keys.yml"},
            "tls": {"secret": "corral-tls"},
            "drainDelaySeconds": 15,
            "clients": {"bodyBytes": 268435456, "connections": 20000, "headTimeout": "5s", "upstreamTimeout": "10m"},
        },
    },
    "limited": {
        "userRoles": {"create": False},
        "watchNamespaces": ["default"],
        "modelPolicy": {
            "enabled": True,
            "actions": ["Warn", "Audit"],
            "imageRegistries": ["*"],
            "secrets": ["*"],
            "priorityClasses": ["*"],
            "runtimeClasses": ["*"],
        },
    },
    "placed": {
        "caBundle": {"secret": "authorities", "key": "all.pem"},
        "priorityClasses": {"create": True, "runner": -10, "runnerPreemption": "PreemptLowerPriority"},
        "image": {"pullSecrets": [{"name": "registry"}], "pullPolicy": "Always"},
        "runner": {"env": [{"name": "A", "value": '$(B) "quoted"'}]},
        "gateway": {
            "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
            "nodeSelector": {"kubernetes.io/os": "linux"},
            "tolerations": [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": ["amd64"]}]}
                        ]
                    }
                }
            },
            "podAnnotations": {"example.com/a": "b"},
        },
    },
    "named": {
        "nameOverride": "models",
        "fullnameOverride": "llm",
        "control": {"image": {"registry": "mirror.example:5000/corral", "digest": f"sha256:{'0' * 64}"}},
        "runner": {
            "nodeSelector": {"pool": "models"},
            "tolerations": [{"key": "dedicated", "value": "models", "effect": "NoSchedule"}],
        },
        "operator": {"serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/corral"}}},
        "gateway": {
            "serviceAccount": {"create": False, "name": "given"},
            "podLabels": {"team": "models"},
            "extraVolumes": [{"name": "extra", "configMap": {"name": "extra", "optional": True}}],
            "extraVolumeMounts": [{"name": "extra", "mountPath": "/extra", "readOnly": True}],
            "tls": {"secret": "corral-tls"},
        },
        "helmTest": {"apiKey": {"secret": "test-key"}},
        "service": {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/8"]},
    },
}


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_helm_lint_reports_nothing(helm: Helm, values: Mapping[str, object]) -> None:
    done = helm("lint", "--strict", str(CHART), "--kube-version", "1.36.0", values=values)
    assert done.returncode == 0, done.stdout


@pytest.mark.usefixtures("foreign_kinds")
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES.keys())
def test_the_api_server_accepts_every_object(cluster: Cluster, helm: Helm, values: Mapping[str, object]) -> None:
    objects = rendered(helm, values)
    dry = ("apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-o", "name")
    text = "\n---\n".join(json.dumps(item) for item in objects)
    accepted = cluster.kubectl(*dry, "-f", "-", input=text).stdout.split()
    assert len(accepted) == len(objects)


def test_an_unknown_field_is_found(cluster: Cluster, helm: Helm) -> None:
    """Prove that the test above can fail."""
    service = next(item for item in rendered(helm, {}) if item["kind"] == "Service")
    wrong = service | {"spec": {**cast("Object", service["spec"]), "prots": []}}
    dry = ("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-")
    done = cluster.kubectl(*dry, input=json.dumps(wrong), check=False)
    assert done.returncode != 0
    assert "spec.prots" in done.stderr


def test_a_misspelt_value_is_rejected_at_every_level(helm: Helm) -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    free = {"nodeSelector", "podAnnotations", "podLabels", "annotations", "labels", "namespaceWeights"}
    places = set(_misspell(values, "", free))
    values["gateway"]["env"] = [{"name": "A", "mispelt": "x"}]
    values["gateway"]["affinity"] = {"nodeAffinity": {"mispelt": []}}
    places |= {"/gateway/env/0", "/gateway/affinity/nodeAffinity"}
    done = helm("template", "other", str(CHART), "--kube-version", "1.36.0", values=values)
    assert done.returncode != 0
    refused = {line.split("'")[1] for line in done.stderr.splitlines() if "'mispelt' not allowed" in line}
    assert places - {"/gateway/affinity", "/operator/affinity"} <= refused
    assert len(places) > 15


def _misspell(values: dict[str, object], path: str, free: set[str]) -> Iterator[str]:
    """Add an unknown key to every mapping; yield the paths."""
    for name, inner in values.items():
        if isinstance(inner, dict) and name not in free | {"requests", "limits", "affinity"}:
            yield from _misspell(inner, f"{path}/{name}", free)
    values["mispelt"] = "x"
    yield path


def test_large_numbers_are_not_written_in_scientific_notation(helm: Helm) -> None:
    made = rendered(helm, {"settings": {"contextLength": 2097152, "maxQueue": 5000000}})
    assert variable(made, "operator", "OLLAMA_CONTEXT_LENGTH") == "2097152"
    assert variable(made, "gateway", "OLLAMA_MAX_QUEUE") == "5000000"


@pytest.mark.parametrize("gateway", [{}, {"drainSeconds": 1800, "drainDelaySeconds": 20}])
def test_the_drain_of_a_runner_is_not_shorter_than_that_of_a_gateway(helm: Helm, gateway: dict[str, int]) -> None:
    made = rendered(helm, {"gateway": gateway})
    seconds = {
        (part, name): int((variable(made, part, name) or "0s").removesuffix("s"))
        for part, name in (
            ("gateway", "CORRAL_DRAIN_TIMEOUT"),
            ("gateway", "CORRAL_DRAIN_DELAY"),
            ("operator", "CORRAL_DRAIN_TIMEOUT"),
        )
    }
    own = seconds["gateway", "CORRAL_DRAIN_TIMEOUT"] + seconds["gateway", "CORRAL_DRAIN_DELAY"]
    assert own == (gateway.get("drainSeconds") or 600) + (gateway.get("drainDelaySeconds") or 5)
    assert seconds["operator", "CORRAL_DRAIN_TIMEOUT"] >= own


def test_the_weights_of_namespaces_are_one_setting(helm: Helm) -> None:
    made = rendered(helm, {"settings": {"namespaceWeights": {"team-a": 3, "batch": 0.5}}})
    assert parse_weights((variable(made, "gateway", "CORRAL_NAMESPACE_WEIGHTS") or "").split(",")) == {
        "team-a": 3.0,
        "batch": 0.5,
    }
    assert variable(rendered(helm, {}), "gateway", "CORRAL_NAMESPACE_WEIGHTS") is None


@pytest.mark.usefixtures("foreign_kinds")
def test_the_notes_warn_if_no_scraper_may_read_the_runners_metrics(helm: Helm) -> None:
    def notes(**monitoring: object) -> str:
        values = {"crds": {"install": False}, "monitoring": {"enabled": True, **monitoring}}
        done = helm("install", "other", str(CHART), "-n", "default", "--dry-run=client", values=values)
        assert done.returncode == 0, done.stderr
        return done.stdout.partition("NOTES:")[2]

    monitor = {"podSelector": {"matchLabels": {"app": "prometheus"}}}
    assert "monitoring.from" in notes()
    assert "monitoring.from" not in notes(**{"from": [monitor]})


def test_alerts_link_to_their_sections_and_the_dashboard_is_unchanged(helm: Helm) -> None:
    made = rendered(helm, {"monitoring": {"rules": {"enabled": True}, "dashboard": {"enabled": True}}})
    [rules] = [item for item in made if item["kind"] == "PrometheusRule"]
    written = yaml.safe_load((CHART / "files/alerts.yaml").read_text())
    page = (CHART.parents[1] / "docs/alerts.md").read_text()
    for given, alert in zip(
        cast("list[Object]", at(rules, "spec", "groups", 0, "rules")), written["groups"][0]["rules"], strict=True
    ):
        runbook = cast("dict[str, str]", given["annotations"]).pop("runbook_url")
        assert given == alert
        assert runbook == f"docs/alerts.md#{alert['alert'].lower()}"
        assert f"\n## {alert['alert']}\n" in page
    [dashboard] = [item for item in made if at(item, "metadata", "name") == f"{FULLNAME}-dashboard"]
    text = cast("str", at(dashboard, "data", "corral.json"))
    assert json.loads(text) == json.loads((CHART / "files/dashboard.json").read_text())


def test_volumes_of_operator_and_gateways_cannot_fill_the_disk_of_a_node(helm: Helm) -> None:
    deployments = [item for item in rendered(helm, {}) if item["kind"] == "Deployment"]
    assert len(deployments) == 2
    for deployment in deployments:
        volumes = cast("list[Object]", at(deployment, "spec", "template", "spec", "volumes"))
        sizes = [at(volume, "emptyDir", "sizeLimit") for volume in volumes if "emptyDir" in volume]
        assert sizes == ["64Mi"]


@pytest.mark.parametrize("tls", ["", "corral-tls"])
def test_the_gateways_probes_have_a_port_of_their_own_without_tls(helm: Helm, tls: str) -> None:
    made = rendered(helm, {"gateway": {"tls": {"secret": tls}}})
    [gateway] = [
        item for item in made if (item["kind"], at(item, "metadata", "name")) == ("Deployment", f"{FULLNAME}-gateway")
    ]
    container = cast("Object", at(gateway, "spec", "template", "spec", "containers", 0))
    ports = {item["name"]: str(item["containerPort"]) for item in cast("list[Object]", container["ports"])}
    assert ports["probes"] == variable(made, "gateway", "CORRAL_PROBE_PORT")
    for probe, path in (("startupProbe", "/healthz"), ("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")):
        assert at(container, probe, "httpGet") == {"path": path, "port": "probes"}
    [service] = [item for item in made if item["kind"] == "Service"]
    assert [item["targetPort"] for item in cast("list[Object]", at(service, "spec", "ports"))] == ["http"]
    [policy] = [
        item
        for item in made
        if item["kind"] == "NetworkPolicy" and at(item, "metadata", "name") == f"{FULLNAME}-gateways"
    ]
    admitted = [at(rule, "ports", 0, "port") for rule in cast("list[Object]", at(policy, "spec", "ingress"))]
    assert "probes" not in admitted


def test_every_monitor_names_a_port_of_its_pods(helm: Helm) -> None:
    made = rendered(helm, {"monitoring": {"enabled": True}})
    monitors = [item for item in made if item["kind"] == "PodMonitor"]
    deployments = [item for item in made if item["kind"] == "Deployment"]
    assert len(monitors) == 3
    for monitor in monitors:
        wanted = cast("Mapping[str, str]", at(monitor, "spec", "selector", "matchLabels"))
        port = at(monitor, "spec", "podMetricsEndpoints", 0, "port")
        if wanted["app.kubernetes.io/name"] == "corral-runner":
            assert port == "http"  # the name that the operator gives it
            continue
        [pods] = [
            cast("Object", at(item, "spec", "template"))
            for item in deployments
            if wanted.items() <= cast("Mapping[str, str]", at(item, "spec", "template", "metadata", "labels")).items()
        ]
        ports = cast("list[Object]", at(pods, "spec", "containers", 0, "ports"))
        assert port in [one["name"] for one in ports]


def _listed(cluster: Cluster) -> bool:
    try:
        return cluster.api.items(f"{MODELS}/models") is not None
    except ApiError:
        return False


def test_the_crd_is_upgraded_with_the_release_and_kept_after_it(
    own_control_plane: ControlPlane, cluster: Cluster, helm: Helm, namespace: str, tmp_path: Path
) -> None:
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    none: Mapping[str, object] = {"operator": {"replicas": 0}, "gateway": {"replicas": 0}}
    flags = ("-n", namespace, "--take-ownership")
    try:
        assert helm("install", "crds", str(chart), *flags, values=none).returncode == 0
        file = chart / "files/corral.dev_models.yaml"
        file.write_text(file.read_text().replace("shortNames: [mdl]", "shortNames: [mdl, mdls]"))
        upgraded = helm("upgrade", "crds", str(chart), *flags, values=none)
        assert upgraded.returncode == 0, upgraded.stderr
        until(lambda: "mdls" in str(at(cluster.api.get(CRD), "spec", "names", "shortNames")), 10, what="the new name")
    finally:
        removed = helm("uninstall", "crds", "-n", namespace)
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRDS))
        until(lambda: _listed(cluster), 30, what="the Models after a change of the CRD", interval=0.1)
    assert "kept" in removed.stdout + removed.stderr, removed
    assert at(cluster.api.get(CRD), "metadata", "deletionTimestamp") is None
