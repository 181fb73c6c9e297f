"""Bodies as Ollama reads them, and the texts of Go's decoder."""

from __future__ import annotations

import pytest

from corral_server.runner.requests import MISSING_BODY_OPENAI, Fields, parse_body
from corral_server.wire.errors import ApiError


def parse(text: str | bytes) -> Fields:
    return parse_body(text.encode() if isinstance(text, str) else text, kind="Request")


def refusal(text: str | bytes) -> str:
    with pytest.raises(ApiError) as caught:
        parse(text)
    assert caught.value.status == 400
    return caught.value.message


def test_only_the_first_value_counts() -> None:
    assert parse('  {"model":"a"} {"model":"b"} junk').text("model") == "a"


def test_keys_are_compared_without_case_and_the_last_wins() -> None:
    assert parse('{"Model":"a","MODEL":"b"}').text("model") == "b"


def test_null_is_unset() -> None:
    fields = parse('{"model":null,"stream":null,"options":null,"messages":null}')
    assert (fields.text("model"), fields.flag("stream"), fields.mapping("options")) == ("", None, {})
    assert fields.objects("messages", "Message") == []


def test_unknown_keys_are_ignored() -> None:
    assert parse('{"model":"a","surprise":[1]}').text("model") == "a"


@pytest.mark.parametrize("body", ["", " \n\t "])
def test_nothing_is_a_missing_body(body: str) -> None:
    assert refusal(body) == "missing request body"


def test_openai_calls_nothing_eof() -> None:
    with pytest.raises(ApiError, match=r"^EOF$"):
        parse_body(b"", kind="Request", missing=MISSING_BODY_OPENAI)


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
def test_malformed_json_gets_gos_words(body: str, text: str) -> None:
    assert refusal(body) == text


def test_deep_json_is_refused() -> None:
    assert refusal('{"a":' + "[" * 200_000) == "exceeded max depth"


def test_a_number_with_thousands_of_digits_is_refused() -> None:
    assert refusal('{"a":' + "9" * 10_000 + "}").startswith("json: cannot unmarshal number")


def test_bytes_that_are_no_utf8_become_replacement_characters() -> None:
    assert parse(b'{"model":"a\xff"}').text("model") == "a\ufffd"


def test_a_lone_surrogate_becomes_a_replacement_character() -> None:
    assert parse(r'{"model":"a\ud800","list":["\udfff"]}').text("model") == "a\ufffd"
    assert parse(r'{"list":["\udfff"]}').items("list") == ["\ufffd"]


def test_a_pair_of_surrogates_is_a_character() -> None:
    assert parse(r'{"model":"\ud83d\ude00"}').text("model") == "😀"


@pytest.mark.parametrize(
    ("read", "text"),
    [
        ("text", "json: cannot unmarshal number into Go struct field Request.a of type string"),
        ("flag", "json: cannot unmarshal number into Go struct field Request.a of type bool"),
        ("mapping", "json: cannot unmarshal number into Go struct field Request.a of type map[string]interface {}"),
        ("integers", "json: cannot unmarshal number into Go struct field Request.a of type []int"),
    ],
)
def test_a_wrong_type_names_the_field(read: str, text: str) -> None:
    with pytest.raises(ApiError) as caught:
        getattr(parse('{"A":1.5}'), read)("a")
    assert caught.value.message == text


def test_true_is_no_integer() -> None:
    with pytest.raises(ApiError, match="cannot unmarshal bool"):
        parse('{"a":[true]}').integers("a")
