"""Settings of the repository for blobs."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from corral_core.base.errors import InvalidSetting
from corral_server.gateway.management.oci.repository import BlobRepository, blob_repository
from corral_server.registries.docker_config import NO_LOGIN, Login


def test_without_a_repository_there_are_no_blobs() -> None:
    assert blob_repository({}) is None


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("registry.example/corral/blobs", "https://registry.example/v2/corral/blobs"),
        ("https://registry.example:5000/blobs", "https://registry.example:5000/v2/blobs"),
        ("http://registry.svc:5000/blobs", "http://registry.svc:5000/v2/blobs"),
        ("docker.io/team/blobs", "https://registry-1.docker.io/v2/team/blobs"),
    ],
)
def test_a_repository_has_a_url(text: str, url: str) -> None:
    repository = blob_repository({"CORRAL_BLOBS_REPOSITORY": text})
    assert repository is not None
    assert repository.url == url
    assert repository.login() == NO_LOGIN


@pytest.mark.parametrize(
    "text",
    [
        "registry",
        "registry.example/blobs:1",
        "ftp://registry.example/blobs",
        "http://a:secret@b.example/c",  # pragma: allowlist secret
    ],
)
def test_other_texts_are_refused_with_the_form(text: str) -> None:
    with pytest.raises(InvalidSetting, match="write registry/repository") as refused:
        blob_repository({"CORRAL_BLOBS_REPOSITORY": text})
    assert "secret" not in str(refused.value)


def test_a_docker_config_has_the_login_of_the_registry(tmp_path: Path) -> None:
    auth = base64.b64encode(b"gateway:secret").decode()
    (tmp_path / ".dockerconfigjson").write_text(json.dumps({"auths": {"registry.example": {"auth": auth}}}))
    assert BlobRepository("registry.example", "blobs", credentials=tmp_path).login() == Login("gateway", "secret")


def test_a_secret_without_a_login_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"username and password, or a \.dockerconfigjson with an entry"):
        BlobRepository("registry.example", "blobs", credentials=tmp_path).login()
