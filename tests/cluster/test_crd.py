"""The CRD on a real API server: what it takes, what it refuses and how it says so, its defaults, columns and scale."""

from __future__ import annotations

import pytest

from corral_core.resource import parse_model
from tests.cluster.api import ApiError, Object, at
from tests.cluster.cluster import Cluster
from tests.core.model_cases import BAD, EVERYTHING, GOOD, SOURCE, Bad, Good, document

pytestmark = pytest.mark.cluster


def _dry_run(cluster: Cluster, case: Good | Bad) -> Object:
    path = "/apis/corral.dev/v1alpha1/namespaces/default/models"
    query = {"dryRun": "All", "fieldValidation": "Strict"}
    return cluster.api.request("POST", path, body=document(case), query=query)


def _create(cluster: Cluster, namespace: str, **spec: object) -> Object:
    case = Good("created", {"source": SOURCE, **spec})
    return cluster.api.create(f"/apis/corral.dev/v1alpha1/namespaces/{namespace}/models", document(case))


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.id)
def test_the_api_server_takes_what_the_parser_takes(cluster: Cluster, case: Good) -> None:
    stored = _dry_run(cluster, case)
    assert parse_model(stored).spec == parse_model(document(case)).spec


@pytest.mark.parametrize("case", [case for case in BAD if case.server], ids=lambda case: case.id)
def test_the_api_server_refuses_what_the_parser_refuses(cluster: Cluster, case: Bad) -> None:
    with pytest.raises(ApiError) as refusal:
        _dry_run(cluster, case)
    assert refusal.value.status in (400, 422)
    assert case.server is not None
    assert case.server in str(refusal.value)
