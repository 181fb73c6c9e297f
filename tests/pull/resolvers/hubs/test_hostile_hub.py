"""Responses of a hostile or broken hub: SourceError is the only error, and no file leaves the repository."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.base.errors import SourceError
from corral_core.sources.snapshot import check_file_name
from corral_core.sources.uri import parse_source
from corral_server.pull.credentials import Credentials
from corral_server.pull.errors import TransientError
from corral_server.pull.http_requests import HttpResponse
from corral_server.pull.remote_files import HttpLocation, ResolvedSource
from corral_server.pull.resolvers.hub import HubResolver
from corral_server.pull.resolvers.hubs.hugging_face import MAX_PAGES
from corral_server.pull.resolvers.hubs.modelscope import LISTED_LIMIT
from corral_server.pull.resolvers.hubs.repository import listed_file
from tests.pull.resolvers.fake_http import FakeHttp, response

COMMIT = "a" * 40
SHA256 = "b" * 64
REVISION = "GET /api/models/o/r/revision/main"
TREE = f"GET /api/models/o/r/tree/{COMMIT}?recursive=true"
MODELSCOPE = "GET /api/v1/models/o/r/repo/files?Revision=master&Recursive=True"
GOOD = {"type": "file", "path": "a-Q4_K_M.gguf", "size": 5, "oid": "c" * 40, "lfs": {"oid": SHA256, "size": 5}}


def resolve(http: FakeHttp, uri: str = "hf://o/r") -> ResolvedSource:
    endpoints = {"hf": "https://hub.example", "modelscope": "https://hub.example"}
    return HubResolver(http, Credentials(token="secret"), endpoints=endpoints).resolve(parse_source(uri))


def hugging_face(tree: object, *, link: str = "", revision: object = None) -> FakeHttp:
    headers = {"link": link} if link else {}
    made = {REVISION: response(revision or {"sha": COMMIT}), TREE: response(tree, headers=headers)}
    return FakeHttp(made)


def test_a_good_response_is_resolved() -> None:
    http = hugging_face([GOOD])
    found = resolve(http)
    assert [(file.name, file.size, file.sha256) for file in found.files] == [("a-Q4_K_M.gguf", 5, SHA256)]
    assert [request for request, _ in http.asked] == [REVISION, TREE, f"HEAD /o/r/resolve/{COMMIT}/a-Q4_K_M.gguf"]
    location = found.files[0].location
    assert isinstance(location, HttpLocation)
    assert location.headers == {"Authorization": "Bearer secret"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"\xff",
        b"[" * 100_000,
        b"null",
        b"[]",
        {"sha": 5},
        {"sha": "main"},
        {"sha": "A" * 40},
        {"sha": "../x"},
    ],
)
def test_a_commit_that_is_none(body: object) -> None:
    with pytest.raises(SourceError, match=r"source 'hf://o/r': hub\.example does not"):
        resolve(FakeHttp({REVISION: response(body)}))


@pytest.mark.parametrize("tree", [b"", {}, "x", 1, {"path": "a.gguf"}])
def test_a_list_that_is_none(tree: object) -> None:
    with pytest.raises(SourceError, match=r"hub\.example does not answer as a hub of models"):
        resolve(hugging_face(tree))


@pytest.mark.parametrize(
    "entry",
    [
        {},
        [],
        "a-Q4_K_M.gguf",
        {**GOOD, "type": "directory"},
        {**GOOD, "path": 5},
        {**GOOD, "path": ""},
        {**GOOD, "path": "/etc/a-Q4_K_M.gguf"},
        {**GOOD, "path": "../a-Q4_K_M.gguf"},
        {**GOOD, "path": "x/../../a-Q4_K_M.gguf"},
        {**GOOD, "path": "x//a-Q4_K_M.gguf"},
        {**GOOD, "path": "x\\a-Q4_K_M.gguf"},
        {**GOOD, "path": "a\n-Q4_K_M.gguf"},
        {**GOOD, "path": ".a-Q4_K_M.gguf"},
        {**GOOD, "path": f"{'a' * 300}-Q4_K_M.gguf"},
        {**GOOD, "path": f"{'a/' * 600}a-Q4_K_M.gguf"},
        {**GOOD, "lfs": {"oid": "../../etc/passwd", "size": 5}},
        {**GOOD, "lfs": {"oid": "sha256:" + SHA256, "size": 5}},
        {**GOOD, "lfs": {"oid": 5, "size": 5}},
    ],
)
def test_an_invalid_entry_is_left_out(entry: object) -> None:
    with pytest.raises(SourceError, match="the repository has no files"):
        resolve(hugging_face([entry]))
    assert resolve(hugging_face([entry, GOOD])).files[0].sha256 == SHA256


@pytest.mark.parametrize("size", [None, -1, 2**63, True, "5", 1.5])
def test_a_size_that_is_none_is_not_known(size: object) -> None:
    entry = {**GOOD, "size": size, "lfs": {"oid": SHA256}}
    assert resolve(hugging_face([entry])).files[0].size is None


def test_the_next_page_is_requested_from_the_hub_itself() -> None:
    http = hugging_face([], link='<https://evil.example/steal?recursive=true&cursor=x%3D>; rel="next"')
    http.answers[f"{TREE}&cursor=x%3D"] = response([GOOD])
    assert resolve(http).files
    assert all(headers["Authorization"] == "Bearer secret" for _, headers in http.asked)


@pytest.mark.parametrize(
    "link",
    [
        '<https://evil.example/>; rel="next"',
        '<https://hub.example/x?a=b c>; rel="next"',
        '<https://hub.example/x?a=b\r\nx: y>; rel="next"',
        '<https://hub.example/x?a=b>; rel="prev"',
        f'<https://hub.example/x?a={"b" * 5000}>; rel="next"',
        "<" * 100_000,
    ],
)
def test_a_link_that_is_no_next_page(link: str) -> None:
    http = hugging_face([GOOD], link=link)
    assert resolve(http).files
    assert len([request for request, _ in http.asked if "/tree/" in request]) == 1


def test_a_list_without_an_end() -> None:
    http = hugging_face([GOOD], link='<https://hub.example/x?recursive=true>; rel="next"')
    with pytest.raises(SourceError, match=r"the list of the repository's files at hub\.example does not end"):
        resolve(http)
    assert len(http.asked) == 1 + MAX_PAGES


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (response({"error": "x" * 5000}, status=418), "answered with status 418 \\('x{200}'\\)"),
        (response({"error": ["no text"]}, status=418), "answered with status 418$"),
        (response(b"\xff", status=418, headers={"x-error-message": "a\x1b[31m\r\nb"}), r"status 418 \('a \[31m b'\)"),
        (response({}, status=403), "restricts access to the repository, and the token is of an account without access"),
        (response({}, status=404), "has no repository 'o/r', or the token is of an account without access to it"),
    ],
)
def test_an_error_is_bounded_and_printable(answer: HttpResponse, text: str) -> None:
    with pytest.raises(SourceError, match=text) as error:
        resolve(FakeHttp({REVISION: answer}))
    assert "secret" not in str(error.value)
    assert str(error.value).isprintable()


def test_a_mirror_that_does_not_answer_head_is_usable() -> None:
    http = hugging_face([GOOD])
    http.answers[f"HEAD /o/r/resolve/{COMMIT}/a-Q4_K_M.gguf"] = response(status=405)
    assert resolve(http).files


def test_a_mirror_that_fails_at_head_is_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    http = hugging_face([GOOD])
    request = http.request

    def failing(method: str, url: str, **options: Any) -> HttpResponse:
        if method == "HEAD":
            raise TransientError("status 500")
        return request(method, url, **options)

    monkeypatch.setattr(http, "request", failing)
    assert resolve(http).files


def modelscope(files: object, *, code: int = 200, status: int = 200) -> FakeHttp:
    body = {"Code": code, "Data": {"Files": files}, "Message": "m", "Success": code == 200}
    return FakeHttp({MODELSCOPE: response(body, status=status)})


@pytest.mark.parametrize(
    ("http", "text"),
    [
        (modelscope(None), "no branch, tag or commit 'master'"),
        (modelscope([]), "no files at revision 'master'"),
        (modelscope({"a": 1}), "the list of files is not a list"),
        (modelscope([{"Path": "a.gguf", "Sha256": SHA256, "Size": 1, "Revision": "x"}]), "does not report the commit"),
        (modelscope([{}] * LISTED_LIMIT), "has 3000 files or more, which hub.example does not list"),
        (modelscope([], code=10010205001), r"does not list the repository \('m'\)"),
        (modelscope([], status=403), r"refuses access to the repository \('m'\); give a token in spec.sourceSecretRef"),
        (FakeHttp({MODELSCOPE: response(b"<html>")}), "does not answer as a hub of models"),
        (FakeHttp({MODELSCOPE: response([1])}), "does not list the repository"),
        (FakeHttp({MODELSCOPE: response({"Code": 200, "Data": 5})}), "the list of files is not a list"),
    ],
)
def test_an_unusable_response_of_modelscope(http: FakeHttp, text: str) -> None:
    with pytest.raises(SourceError, match=text) as error:
        resolve(http, "modelscope://o/r")
    assert "secret" not in str(error.value)


def test_a_commit_of_modelscope_without_the_branch_s_files_is_refused() -> None:
    entry = {"Path": "a-Q4_K_M.gguf", "Sha256": SHA256, "Size": 5, "Revision": COMMIT, "CommittedDate": 1}
    http = modelscope([entry])
    pinned = f"GET /api/v1/models/o/r/repo/files?Revision={COMMIT}&Recursive=True"
    http.answers[pinned] = response({"Code": 200, "Data": {"Files": [{**entry, "Sha256": "c" * 64}]}})
    with pytest.raises(SourceError, match="does not report the commit of revision 'master'; name a commit"):
        resolve(http, "modelscope://o/r")
    http.answers[pinned] = http.answers[MODELSCOPE]
    assert resolve(http, "modelscope://o/r").pin == COMMIT


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from((*GOOD, "sha", "Data", "Files", "Code")), inner),
)


@given(JSON, JSON)
def test_any_json_is_an_error_or_a_file(revision: object, tree: object) -> None:
    for http, uri in (
        (hugging_face(tree, revision=revision), "hf://o/r"),
        (hugging_face(tree), f"hf://o/r@{COMMIT}"),
        (FakeHttp({MODELSCOPE: response(tree)}), "modelscope://o/r"),
    ):
        with pytest.raises(SourceError):
            resolve(http, uri)


@given(JSON | st.text(), JSON, JSON, JSON)
def test_a_listed_file_cannot_leave_the_repository(path: object, size: object, sha256: object, commit: object) -> None:
    file = listed_file(path, size, sha256=sha256, commit=commit)
    if file is not None:
        assert check_file_name(file.name) == file.name
        assert not {"", ".", ".."}.intersection(file.path.split("/"))
        assert file.size is None or 0 <= file.size < 2**63
        assert file.sha256 is None or len(bytes.fromhex(file.sha256)) == 32
        assert quote(file.path)
        assert json.dumps(file.path)
