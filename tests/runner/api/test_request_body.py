"""Request bodies by Ollama's rules, and the error texts of Go's decoder."""

from __future__ import annotations

import threading

import pytest

from corral_server.runner.api import request_body
from corral_server.runner.api.request_body import THREAD_BYTES, RequestFields, parse_body
from corral_server.wire.errors import ApiError
from tests.support.fake_engine import FakeEngine
from tests.support.runner_server import serving


def parse(text: str | bytes) -> RequestFields:
    return parse_body(text.encode() if isinstance(text, str) else text, "Request")


def refusal(text: str | bytes) -> str:
    with pytest.raises(ApiError) as caught:
        parse(text)
    assert caught.value.status == 400
    return caught.value.message


def test_only_the_first_value_is_read() -> None:
    assert parse('  {"model":"a"} {"model":"b"} junk').string("model") == "a"


def test_keys_are_case_insensitive_and_the_last_one_wins() -> None:
    assert parse('{"Model":"a","MODEL":"b"}').string("model") == "b"


def test_null_counts_as_unset() -> None:
    fields = parse('{"model":null,"stream":null,"options":null,"messages":null}')
    assert (fields.string("model"), fields.boolean("stream"), fields.mapping("options")) == ("", None, {})
    assert fields.objects("messages", "Message") == []


def test_unknown_keys_are_ignored() -> None:
    assert parse('{"model":"a","surprise":[1]}').string("model") == "a"


@pytest.mark.parametrize("body", ["", " \n\t "])
def test_an_empty_body_is_a_missing_body(body: str) -> None:
    assert refusal(body) == "missing request body"


def test_openais_text_for_an_empty_body_is_eof() -> None:
    with pytest.raises(ApiError, match=r"^EOF$"):
        parse_body(b"", "Request", package="openai")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ("{bad}", "invalid character 'b' looking for beginning of object key string"),
        ("x", "invalid character 'x' looking for beginning of value"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a":1', "unexpected EOF"),
        ('{"a":"b', "unexpected EOF"),
        ('{"a":NaN}', "invalid character 'N' looking for beginning of value"),
        ('{"a":1e999}', "json: cannot unmarshal number 1e999 into Go value of type float64"),
        ("[1]", "json: cannot unmarshal array into Go value of type api.Request"),
        ("null", "json: cannot unmarshal null into Go value of type api.Request"),
    ],
)
def test_malformed_json_has_the_texts_of_gos_decoder(body: str, text: str) -> None:
    assert refusal(body) == text


def test_deep_json_is_refused() -> None:
    assert refusal('{"a":' + "[" * 200_000) == "exceeded max depth"


def test_a_number_with_thousands_of_digits_is_refused() -> None:
    assert refusal('{"a":' + "9" * 10_000 + "}").startswith("json: cannot unmarshal number")


def test_invalid_utf8_becomes_replacement_characters() -> None:
    assert parse(b'{"model":"a\xff"}').string("model") == "a\ufffd"


def test_a_lone_surrogate_becomes_a_replacement_character() -> None:
    assert parse(r'{"model":"a\ud800","list":["\udfff"]}').string("model") == "a\ufffd"
    assert parse(r'{"list":["\udfff"]}').array("list") == ["\ufffd"]


def test_a_surrogate_pair_is_one_character() -> None:
    assert parse(r'{"model":"\ud83d\ude00"}').string("model") == "😀"


@pytest.mark.parametrize(
    ("read", "text"),
    [
        ("string", "json: cannot unmarshal number into Go struct field Request.a of type string"),
        ("boolean", "json: cannot unmarshal number into Go struct field Request.a of type bool"),
        ("mapping", "json: cannot unmarshal number into Go struct field Request.a of type map[string]interface {}"),
        ("integers", "json: cannot unmarshal number into Go struct field Request.a of type []int"),
    ],
)
def test_a_wrong_type_names_the_field(read: str, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        getattr(parse('{"A":1.5}'), read)("a")
    assert caught.value.message == text


def test_a_bool_is_not_an_integer() -> None:
    with pytest.raises(ApiError, match="cannot unmarshal bool"):
        parse('{"a":[true]}').integers("a")


def test_a_large_body_is_parsed_in_a_thread_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []
    loop: list[threading.Thread] = []

    def recorded(body: bytes | bytearray, kind: str, *, package: str = "api") -> RequestFields:
        threads.append(threading.current_thread() is loop[0])
        return parse_body(body, kind, package=package)

    monkeypatch.setattr(request_body, "parse_body", recorded)
    with serving(FakeEngine()) as runner:
        loop.append(runner.call(threading.current_thread))
        for size in (100, THREAD_BYTES):
            answer = runner.post("/api/show", {"model": "tiny", "system": "x" * size})
            assert len(answer.json()["system"]) == size
        assert runner.post("/api/show", raw=b'"' + b"x" * THREAD_BYTES).status_code == 400
    assert threads == [True, False, False]
