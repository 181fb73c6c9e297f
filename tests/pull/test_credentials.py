"""Credentials from a mounted Secret and from a laptop's environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from corral_core.base.errors import SourceError
from corral_server.pull.credentials import MAX_OPTIONS, MAX_VALUE, NO_CREDENTIALS, Credentials

SECRET = "geheim"


def mounted(folder: Path, **keys: str | bytes) -> Path:
    """Write keys as a kubelet mounts them: symlinks through ``..data`` to a folder of one generation."""
    generation = folder / "..2026_01_01"
    generation.mkdir()
    (folder / "..data").symlink_to(generation.name)
    for key, value in keys.items():
        name = key.replace("__", ".")
        (generation / name).write_bytes(value.encode() if isinstance(value, str) else value)
        (folder / name).symlink_to(f"..data/{name}")
    return folder


def test_all_keys_of_a_secret(tmp_path: Path) -> None:
    found = Credentials.from_folder(
        mounted(
            tmp_path,
            token="t0\n",
            username=" user ",
            password="pass word\n",
            id_ed25519="-----BEGIN\nkey\n-----END\n",
            __dockerconfigjson='{\n "auths": {}}\n',
            AWS_ACCESS_KEY_ID="a",
            GOOGLE_SERVICE_ACCOUNT_KEY='{\n"type": "x"}',
            AZURE_STORAGE_ACCOUNT_KEY="c",
            unrelated="d",
        )
    )
    assert (found.token, found.username, found.password) == ("t0", "user", "pass word")
    assert found.ollama_key == "-----BEGIN\nkey\n-----END\n"
    assert found.docker_config == '{\n "auths": {}}\n'
    assert found.options == {
        "AWS_ACCESS_KEY_ID": "a",
        "GOOGLE_SERVICE_ACCOUNT_KEY": '{\n"type": "x"}',
        "AZURE_STORAGE_ACCOUNT_KEY": "c",
    }
    assert found.token_for("any.example.com") == "t0"


@pytest.mark.parametrize("key", ["token", "HF_TOKEN", "MODELSCOPE_API_TOKEN"])
def test_other_names_of_a_token(tmp_path: Path, key: str) -> None:
    assert Credentials.from_folder(mounted(tmp_path, **{key: "t0"})).token == "t0"


def test_the_key_of_an_ssh_secret(tmp_path: Path) -> None:
    folder = tmp_path / "secret"
    folder.mkdir()
    (folder / "ssh-privatekey").write_text("key")
    assert Credentials.from_folder(folder).ollama_key == "key"


def test_a_secret_without_a_known_key_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none of the keys token, .*; it has apikey") as raised:
        Credentials.from_folder(mounted(tmp_path, apikey=SECRET))
    assert SECRET not in str(raised.value)


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        Credentials.from_folder(tmp_path / "missing")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (f"{SECRET}\n{SECRET}", "line breaks"),
        (f"{SECRET}\x00", "control characters"),
        (SECRET * MAX_VALUE, "more than"),
        (SECRET.encode() + b"\xff\xfe", "not UTF-8"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_by_its_key(tmp_path: Path, value: str | bytes, text: str) -> None:
    with pytest.raises(SourceError, match=rf"'token' of the Secret .*{text}") as raised:
        Credentials.from_folder(mounted(tmp_path, token=value))
    assert SECRET not in str(raised.value)


def test_the_number_of_options_is_bounded(tmp_path: Path) -> None:
    keys = {f"AWS_{index}": "x" for index in range(MAX_OPTIONS + 1)}
    with pytest.raises(SourceError, match=f"at most {MAX_OPTIONS}"):
        Credentials.from_folder(mounted(tmp_path, **keys))
    assert len(Credentials.from_environment(keys).options) == MAX_OPTIONS


def test_no_repr_shows_a_value() -> None:
    held = dict.fromkeys(("token", "username", "password", "ollama_key", "docker_config"), SECRET)
    shown = Credentials(**held, options={"AWS_X": SECRET}, host_tokens={"a": SECRET})
    assert SECRET not in f"{shown!r} {shown}"


def test_an_empty_environment_has_no_credentials(tmp_path: Path) -> None:
    assert Credentials.from_environment({}) == NO_CREDENTIALS
    assert Credentials.from_environment({"HOME": str(tmp_path)}) == NO_CREDENTIALS


def test_a_token_of_the_environment_is_for_its_service_alone() -> None:
    found = Credentials.from_environment(
        {
            "HF_TOKEN": "hf",
            "HF_ENDPOINT": ' "https://Mirror.example.com/hf" ',
            "MODELSCOPE_API_TOKEN": "ms",
            "MODELSCOPE_ENDPOINT": "https://ms.example.com:8443",
        }
    )
    assert {host: found.token_for(host) for host in ("huggingface.co", "HF.co", "mirror.example.com")} == {
        "huggingface.co": "hf",
        "HF.co": "hf",
        "mirror.example.com": "hf",
    }
    assert found.token_for("modelscope.cn") == found.token_for("ms.example.com") == "ms"
    assert found.token_for("example.com") == found.token_for("huggingface.co.example.com") == found.token == ""


def test_an_address_of_a_mirror_that_is_no_url_gets_no_token() -> None:
    found = Credentials.from_environment({"HF_TOKEN": "hf", "HF_ENDPOINT": "https://[::1"})
    assert set(found.host_tokens) == {"huggingface.co", "hf.co"}


def test_the_files_of_a_home_directory(tmp_path: Path) -> None:
    for name, content in (
        (".ollama/id_ed25519", "key"),
        (".docker/config.json", "{}"),
        (".cache/huggingface/token", "hf\n"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    found = Credentials.from_environment({"HOME": str(tmp_path), "AWS_REGION": "x", "AWSX": "y", "PATH": "z"})
    assert (found.ollama_key, found.docker_config, found.token_for("hf.co")) == ("key", "{}", "hf")
    assert found.options == {"AWS_REGION": "x"}


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_TOKEN_PATH"])
def test_the_saved_token_is_where_its_variables_say(tmp_path: Path, variable: str) -> None:
    (tmp_path / "token").write_text("hf")
    place = tmp_path if variable == "HF_HOME" else tmp_path / "token"
    assert Credentials.from_environment({variable: str(place)}).token_for("hf.co") == "hf"


def test_the_docker_config_is_where_its_variable_says(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert Credentials.from_environment({"DOCKER_CONFIG": str(tmp_path)}).docker_config == "{}"


def test_a_file_that_is_too_large_counts_as_missing(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("x" * 1_000_000)
    assert Credentials.from_environment({"DOCKER_CONFIG": str(tmp_path)}) == NO_CREDENTIALS
