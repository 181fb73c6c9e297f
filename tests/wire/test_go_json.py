"""Error texts of Go's JSON decoder, as Ollama's server returned them for these inputs."""

from __future__ import annotations

import json

import pytest

from corral_server.wire.go_json import constant_error, syntax_error

_CASES = [
    (r'{"a":"\x"}', "invalid character 'x' in string escape code"),
    (r'{"a":"\u12G4"}', r"invalid character 'G' in \u hexadecimal character escape"),
    (r'{"a":"\u12', "unexpected EOF"),
    (r'{"a":"\\'[:-1], "unexpected EOF"),
    (r'{"a":"\"', "unexpected EOF"),
    ('"x', "unexpected EOF"),
    ('{"a":"b\nc"}', r"invalid character '\n' in string literal"),
    ('{"a":"b\x01c"}', r"invalid character '\x01' in string literal"),
    ('{"a":tru}', "invalid character '}' in literal true (expecting 'e')"),
    ('{"a":trux}', "invalid character 'x' in literal true (expecting 'e')"),
    ('{"a":nul', "unexpected EOF"),
    ("tru", "unexpected EOF"),
    ('{"a":-}', "invalid character '}' in numeric literal"),
    ('{"a":1.}', "invalid character '}' after decimal point in numeric literal"),
    ('{"a":1e}', "invalid character '}' in exponent of numeric literal"),
    ('{"a":1e+', "unexpected EOF"),
    ('{"a":.5}', "invalid character '.' looking for beginning of value"),
    ('{"a":00}', "invalid character '0' after object key:value pair"),
    ('{"a":1]', "invalid character ']' after object key:value pair"),
    ('{"a":[{"b":[]} x', "invalid character 'x' after array element"),
    ('{"a":"]é[" x}', "invalid character 'x' after object key:value pair"),
    ('{"a":[1 2]}', "invalid character '2' after array element"),
    ("[1}", "invalid character '}' after array element"),
    ("[1,]", "invalid character ']' looking for beginning of value"),
    ('{"a" 1}', "invalid character '1' after object key"),
    ("{,}", "invalid character ',' looking for beginning of object key string"),
    ('{"a":1,}', "invalid character '}' looking for beginning of object key string"),
    ("{'a':1}", r"invalid character '\'' looking for beginning of object key string"),
    ('{"a":é}', "invalid character 'Ã' looking for beginning of value"),
    ("\ufeff{}", "invalid character 'ï' looking for beginning of value"),
]


@pytest.mark.parametrize(("text", "words"), _CASES)
def test_syntax_errors_have_the_texts_of_gos_decoder(text: str, words: str) -> None:
    with pytest.raises(json.JSONDecodeError) as raised:
        json.JSONDecoder().raw_decode(text)
    assert syntax_error(text, raised.value) == words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("NaN", "invalid character 'N' looking for beginning of value"),
        ("Infinity", "invalid character 'I' looking for beginning of value"),
        ("-Infinity", "invalid character 'I' in numeric literal"),
    ],
)
def test_constants_that_json_does_not_have(name: str, words: str) -> None:
    assert constant_error(name) == words
