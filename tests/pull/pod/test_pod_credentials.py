"""Credentials of a pod: the Model's Secret, or the installation's, or its environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_core.base.errors import SourceError
from corral_server.pull.pod.puller import pod_credentials

ENVIRONMENT = {"HF_TOKEN": "of the environment"}


def test_the_installations_secret_replaces_the_environment(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of the namespace")
    found = pod_credentials({**ENVIRONMENT, "CORRAL_DEFAULT_SECRET": str(tmp_path)})
    assert found.token_for("huggingface.co") == "of the namespace"


def test_a_namespace_without_the_installations_secret_has_the_environment(tmp_path: Path) -> None:
    found = pod_credentials({**ENVIRONMENT, "CORRAL_DEFAULT_SECRET": str(tmp_path)})
    assert (found.token, found.token_for("huggingface.co")) == ("", "of the environment")


def test_an_empty_secret_of_the_model_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="none of the keys"):
        pod_credentials({**ENVIRONMENT, "CORRAL_SOURCE_SECRET": str(tmp_path)})
