"""Resolver of ``hf://`` and ``modelscope://`` against servers with the hubs' APIs, through the real HTTP client."""

from __future__ import annotations

import hashlib
from contextlib import closing

import pytest

from corral_core.base.errors import SourceError
from corral_core.sources.forms import HubSource
from corral_core.sources.uri import parse_source
from corral_server.pull.credentials import NO_CREDENTIALS, Credentials
from corral_server.pull.errors import LocationExpired
from corral_server.pull.http.client import HttpClient
from corral_server.pull.remote_files import FileRole, RemoteFile, ResolvedSource
from corral_server.pull.resolvers.hub import HubResolver
from tests.support.hub_repository import Repository
from tests.support.hub_server import HubServer

NAME = "bartowski/Tiny-GGUF"
TOKEN = Credentials(token="hf_reader")
FILES: dict[str, bytes | None] = {
    ".gitattributes": b"*.gguf filter=lfs",
    "README.md": b"# Tiny",
    "Q8_0/tiny-Q8_0-00001-of-00002.gguf": b"first part" * 100,
    "Q8_0/tiny-Q8_0-00002-of-00002.gguf": b"second part" * 100,
    "mmproj-tiny-f16.gguf": b"projector" * 100,
    "tiny-Q4_K_M.gguf": b"weights" * 1000,
}


@pytest.fixture
def repository(hub: HubServer) -> Repository:
    hub.tokens.update({"hf_reader", "hf_other"})
    made = hub.add(Repository(NAME))
    made.commit(FILES, branch="main")
    made.refs["master"] = made.refs["main"]
    return made


def resolve(
    hub: HubServer, client: HttpClient, uri: str, *, pin: str = "", credentials: Credentials = NO_CREDENTIALS
) -> ResolvedSource:
    source = parse_source(uri)
    assert isinstance(source, HubSource)
    resolver = HubResolver(client, credentials, endpoints={"hf": hub.url, "modelscope": hub.url})
    return resolver.resolve(source, pin=pin)


def read(client: HttpClient, file: RemoteFile, *, start: int = 0) -> bytes:
    """Read a file to its end."""
    buffer, read = bytearray(1024 * 1024), 0
    with closing(client.open(file.location, start=start)) as stream:
        assert stream.start == start
        while count := stream.readinto(memoryview(buffer)[read:]):
            read += count
    return bytes(buffer[:read])


SCHEMES = pytest.mark.parametrize("scheme", ["hf", "modelscope"])


@SCHEMES
def test_the_default_quantization_with_its_projector(
    hub: HubServer, client: HttpClient, repository: Repository, scheme: str
) -> None:
    found = resolve(hub, client, f"{scheme}://{NAME}")
    assert found.pin == repository.refs["main"]
    assert [(file.name, file.role) for file in found.files] == [
        ("tiny-Q4_K_M.gguf", FileRole.WEIGHTS),
        ("mmproj-tiny-f16.gguf", FileRole.PROJECTOR),
    ]
    weights = FILES["tiny-Q4_K_M.gguf"]
    assert weights is not None
    assert found.files[0].size == len(weights)
    assert found.files[0].sha256 == hashlib.sha256(weights).hexdigest()
    assert read(client, found.files[0]) == weights
    assert read(client, found.files[0], start=6000) == weights[6000:]


@SCHEMES
def test_all_parts_of_a_split_file_in_a_folder(
    hub: HubServer, client: HttpClient, repository: Repository, scheme: str
) -> None:
    for uri in (f"{scheme}://{NAME}:q8_0", f"{scheme}://{NAME}/Q8_0/tiny-Q8_0-00001-of-00002.gguf"):
        found = resolve(hub, client, uri)
        assert [file.name for file in found.files] == [
            "tiny-Q8_0-00001-of-00002.gguf",
            "tiny-Q8_0-00002-of-00002.gguf",
            "mmproj-tiny-f16.gguf",
        ]
        assert [read(client, file) for file in found.files[:2]] == [b"first part" * 100, b"second part" * 100]
        assert found.size == 1000 + 1100 + 900
        assert found.pin == repository.refs["main"]


@SCHEMES
def test_a_pin_is_resolved_to_the_same_files_after_the_branch_has_moved(
    hub: HubServer, client: HttpClient, repository: Repository, scheme: str
) -> None:
    before = resolve(hub, client, f"{scheme}://{NAME}")
    moved = repository.commit({"tiny-Q4_K_M.gguf": b"new weights"}, branch="main")
    repository.refs["master"] = moved
    assert resolve(hub, client, f"{scheme}://{NAME}", pin=before.pin) == before
    after = resolve(hub, client, f"{scheme}://{NAME}")
    assert after.pin == moved
    assert read(client, after.files[0]) == b"new weights"
    assert read(client, before.files[0]) == FILES["tiny-Q4_K_M.gguf"]


@SCHEMES
def test_a_revision_is_a_branch_a_tag_or_a_commit(
    hub: HubServer, client: HttpClient, repository: Repository, scheme: str
) -> None:
    first = repository.refs["main"]
    repository.refs["v1/stable"] = first
    repository.commit({"tiny-Q4_K_M.gguf": b"new weights"}, branch="main")
    for revision in ("v1/stable", first):
        found = resolve(hub, client, f"{scheme}://{NAME}@{revision}")
        assert found.pin == first
        assert read(client, found.files[0]) == FILES["tiny-Q4_K_M.gguf"]


@SCHEMES
def test_a_missing_revision_is_named(hub: HubServer, client: HttpClient, repository: Repository, scheme: str) -> None:
    text = f"source '{scheme}://{NAME}@v9': the repository has no branch, tag or commit 'v9'; correct the part after"
    with pytest.raises(SourceError, match=text):
        resolve(hub, client, f"{scheme}://{NAME}@v9")


@SCHEMES
def test_a_missing_quantization_lists_the_others(
    hub: HubServer, client: HttpClient, repository: Repository, scheme: str
) -> None:
    with pytest.raises(SourceError, match=r"no quantization 'Q2_K'; it has Q8_0, Q4_K_M$"):
        resolve(hub, client, f"{scheme}://{NAME}:Q2_K")


@SCHEMES
def test_a_repository_without_gguf_names_where_to_search(hub: HubServer, client: HttpClient, scheme: str) -> None:
    repository = hub.add(Repository("meta/Llama-3"))
    repository.refs["master"] = repository.commit({"model.safetensors": b"x", "config.json": b"{}"}, branch="main")
    with pytest.raises(SourceError, match="only weights in safetensors format; name a repository with a GGUF") as error:
        resolve(hub, client, f"{scheme}://meta/Llama-3")
    assert f"{hub.url}/models?" in str(error.value)
    assert "Llama-3" in str(error.value)


@SCHEMES
def test_a_missing_repository(hub: HubServer, client: HttpClient, repository: Repository, scheme: str) -> None:
    with pytest.raises(SourceError, match=r"has no public repository 'no/such'; correct the name.*sourceSecretRef"):
        resolve(hub, client, f"{scheme}://no/such")
    with pytest.raises(SourceError, match="has no repository 'no/such', or the token is of an account without access"):
        resolve(hub, client, f"{scheme}://no/such", credentials=TOKEN)


@SCHEMES
def test_a_private_repository_needs_the_token_of_an_account_with_access(
    hub: HubServer, client: HttpClient, repository: Repository, scheme: str
) -> None:
    repository.private_for = frozenset({"hf_reader"})
    with pytest.raises(SourceError, match=f"has no public repository '{NAME}'"):
        resolve(hub, client, f"{scheme}://{NAME}")
    with pytest.raises(SourceError, match="the token is of an account without access"):
        resolve(hub, client, f"{scheme}://{NAME}", credentials=Credentials(token="hf_other"))
    found = resolve(hub, client, f"{scheme}://{NAME}", credentials=TOKEN)
    assert read(client, found.files[0]) == FILES["tiny-Q4_K_M.gguf"]


@SCHEMES
def test_the_token_goes_to_the_hub_alone(
    hub: HubServer, client: HttpClient, repository: Repository, scheme: str
) -> None:
    found = resolve(hub, client, f"{scheme}://{NAME}", credentials=TOKEN)
    assert read(client, found.files[0]) == FILES["tiny-Q4_K_M.gguf"]
    assert {request.token for request in hub.seen} == {"hf_reader"}
    assert hub.content_seen
    assert not {"authorization", "cookie"}.intersection(*(request.headers for request in hub.content_seen))
    assert "hf_reader" not in repr(found)


@SCHEMES
def test_a_token_of_another_host_is_not_sent(
    hub: HubServer, client: HttpClient, repository: Repository, scheme: str
) -> None:
    resolve(hub, client, f"{scheme}://{NAME}", credentials=Credentials(host_tokens={"huggingface.co": "hf_reader"}))
    assert {request.token for request in hub.seen} == {""}
    assert not any("cookie" in request.headers for request in hub.seen)


@SCHEMES
def test_an_expired_signature_is_replaced_by_the_next_request(
    hub: HubServer, client: HttpClient, repository: Repository, scheme: str
) -> None:
    file = resolve(hub, client, f"{scheme}://{NAME}").files[0]
    assert read(client, file) == FILES["tiny-Q4_K_M.gguf"]
    hub.signature = "s2"
    assert read(client, file) == FILES["tiny-Q4_K_M.gguf"]


def test_a_gated_repository_is_refused_before_the_download(
    hub: HubServer, client: HttpClient, repository: Repository
) -> None:
    repository.gated_for = frozenset({"hf_reader"})
    licence = f"Accept its licence at {hub.url}/{NAME}, and give a token with read access in spec.sourceSecretRef"
    with pytest.raises(SourceError, match="restricts access to the repository, and no token was given") as error:
        resolve(hub, client, f"hf://{NAME}")
    assert licence in str(error.value)
    assert "HF_TOKEN" in str(error.value)
    with pytest.raises(SourceError, match="the token is of an account without access") as error:
        resolve(hub, client, f"hf://{NAME}", credentials=Credentials(token="hf_other"))
    assert licence in str(error.value)
    assert "hf_other" not in str(error.value)
    assert not hub.content_seen
    found = resolve(hub, client, f"hf://{NAME}", credentials=TOKEN)
    assert read(client, found.files[0]) == FILES["tiny-Q4_K_M.gguf"]


def test_an_invalid_token(hub: HubServer, client: HttpClient, repository: Repository) -> None:
    with pytest.raises(SourceError, match="does not accept the token; give a token with read access") as error:
        resolve(hub, client, f"hf://{NAME}", credentials=Credentials(token="hf_wrong"))
    assert "hf_wrong" not in str(error.value)


def test_a_list_of_several_pages_through_a_mirror_that_keeps_the_hub_s_links(
    hub: HubServer, client: HttpClient, repository: Repository
) -> None:
    hub.page_size, hub.link_url = 2, "https://huggingface.co"
    found = resolve(hub, client, f"hf://{NAME}", credentials=TOKEN)
    assert [file.name for file in found.files] == ["tiny-Q4_K_M.gguf", "mmproj-tiny-f16.gguf"]
    assert len([request for request in hub.seen if "/tree/" in request.path]) == 3


def test_the_files_of_a_modelfile(hub: HubServer, client: HttpClient, repository: Repository) -> None:
    repository.commit(
        {
            "template": b"{{ .System }} {{ .Prompt }}",
            "system": "Be brief. \u00e9".encode(),
            "params": b'{"stop": ["Question:"], "temperature": 0.0, "top_k": 1}',
            "sub/template": b"not this one",
        },
        branch="main",
    )
    defaults = resolve(hub, client, f"hf://{NAME}").defaults
    assert defaults.template == "{{ .System }} {{ .Prompt }}"
    assert defaults.system == "Be brief. \u00e9"
    assert defaults.parameters == {"stop": ["Question:"], "temperature": 0.0, "top_k": 1}


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("params", b"[1]", "the parameters of the model are not valid"),
        ("params", b"{" * 100_000, "the parameters of the model are not valid"),
        ("params", b'{"stop": {"a": 1}}', "stop"),
        ("template", b"\xff\xfe", "the template of the model is not valid UTF-8"),
    ],
)
def test_an_unusable_file_of_a_modelfile(
    hub: HubServer, client: HttpClient, repository: Repository, name: str, content: bytes, text: str
) -> None:
    repository.commit({name: content}, branch="main")
    with pytest.raises(SourceError, match=text):
        resolve(hub, client, f"hf://{NAME}")


def test_a_large_file_of_that_name_is_something_else(
    hub: HubServer, client: HttpClient, repository: Repository
) -> None:
    repository.commit({"system": b"x" * 300_000}, branch="main")
    assert resolve(hub, client, f"hf://{NAME}").defaults.system == ""


def test_parts_that_were_uploaded_one_commit_each_share_the_newest_commit(hub: HubServer, client: HttpClient) -> None:
    repository = hub.add(Repository(NAME))
    repository.commit({"a-Q4_K_M-00001-of-00002.gguf": b"1"}, branch="master", time=5)
    newest = repository.commit({"a-Q4_K_M-00002-of-00002.gguf": b"2"}, branch="master", time=5)
    found = resolve(hub, client, f"modelscope://{NAME}")
    assert found.pin == newest
    assert [read(client, file) for file in found.files] == [b"1", b"2"]


def test_a_commit_that_only_deletes_files_does_not_count(hub: HubServer, client: HttpClient) -> None:
    repository = hub.add(Repository(NAME))
    pin = repository.commit({"a-Q8_0.gguf": b"1", "notes.txt": b""}, branch="master")
    repository.commit({"notes.txt": None}, branch="master")
    assert resolve(hub, client, f"modelscope://{NAME}").pin == pin


def test_a_signature_that_is_never_valid_is_reported_as_expired(
    hub: HubServer, client: HttpClient, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = resolve(hub, client, f"hf://{NAME}").files[0]
    monkeypatch.setattr(hub, "_signed", lambda entry: f"{hub.content_url}/{entry.sha256}?X-Amz-Signature=old")
    with pytest.raises(LocationExpired):
        client.open(file.location)


def test_a_pin_that_is_not_a_commit(hub: HubServer, client: HttpClient) -> None:
    with pytest.raises(SourceError, match="the pin 'main' is not a commit"):
        resolve(hub, client, f"hf://{NAME}", pin="main")
    assert not hub.seen
