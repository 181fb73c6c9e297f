"""Images of requests: base64, limits, and their places in prompts."""

from __future__ import annotations

import hashlib

import pytest

from corral_server.runner.images.encoded import (
    EncodedImage,
    go_base64_error,
    shown_prompt,
    split_at_images,
    text_with_images,
)
from corral_server.runner.images.image import Image
from corral_server.runner.images.limits import ImageLimits, decoder_bytes
from corral_server.wire.errors import ApiError
from tests.support.pictures import encoded, png

LIMITS = ImageLimits(count=2, bytes=1000, pixels=100)


def refusal(image: EncodedImage, limits: ImageLimits = LIMITS) -> str:
    with pytest.raises(ApiError) as caught:
        image.decode(limits)
    assert caught.value.status == 400
    return caught.value.message


def test_an_image_has_its_file_digest_and_size() -> None:
    data = png(8, 6)
    assert EncodedImage(encoded(data)).decode(LIMITS) == Image(data, hashlib.sha256(data).hexdigest(), 8, 6)


def test_newlines_in_base64_are_ignored_as_in_go() -> None:
    text = encoded()
    assert EncodedImage(f"{text[:20]}\r\n{text[20:]}\n").decode(LIMITS).data == png()


@pytest.mark.parametrize(
    ("text", "position"),
    [
        *(("!", 0), ("aG!k", 2), ("aGk", 0), ("aGkhaGk", 4), ("aGk=x", 4), ("aG=k", 2), ("a===", 1), ("aGkh=", 4)),
        *(("aG=", 3), ("aG=\n", 4), ("aG==aG==", 4), ("aGkh\nabc\n", 6), ("é", 0), ("aG\nk", 1)),
    ],
)
def test_other_text_is_refused_with_the_position_that_go_reports(text: str, position: int) -> None:
    """The positions are those of Go 1.25's ``base64.StdEncoding``."""
    assert go_base64_error(text) == f"illegal base64 data at input byte {position}"
    assert refusal(EncodedImage(text)) == go_base64_error(text)
    assert refusal(EncodedImage(text, "no {}")) == f"no {go_base64_error(text)}"


def test_a_file_of_too_many_bytes_is_refused() -> None:
    assert "1001 bytes, at most 1000" in refusal(EncodedImage(encoded(bytes(1001))))
    assert "not an image" in refusal(EncodedImage(encoded(bytes(1000))))


def test_a_file_that_declares_too_many_pixels_is_refused() -> None:
    bomb = encoded(png(declared=(60_000, 60_000)))
    assert "60000 x 60000 pixels, at most 100 pixels" in refusal(EncodedImage(bomb))
    assert "11 x 10 pixels" in refusal(EncodedImage(encoded(png(11, 10))))
    assert EncodedImage(encoded(png(10, 10))).decode(LIMITS).width == 10


def test_a_format_that_llama_cpp_does_not_decode_is_refused() -> None:
    webp = b"RIFF" + bytes(4) + b"WEBPVP8X" + bytes(8) + b"\x06\0\0\x04\0\0"
    assert refusal(EncodedImage(encoded(webp))) == "WebP images are not supported: send PNG or JPEG"


def test_decoding_takes_memory_for_copies_of_the_pixels() -> None:
    assert decoder_bytes(Image(b"", "", 20, 10)) == 12 * 200


def test_images_without_a_tag_are_before_the_text() -> None:
    first, second = EncodedImage("x"), EncodedImage("y")
    assert text_with_images("a", [first, second]) == f"{first.marker}{second.marker}a"
    assert text_with_images("a[img]b", [first, second]) == f"{second.marker}a{first.marker}b"


def test_a_prompt_is_split_at_its_images() -> None:
    one, two = EncodedImage("x"), EncodedImage("y")
    text = f"a{two.marker}{one.marker}b"
    assert split_at_images(text, [one.marker, two.marker]) == ("a", two.marker, one.marker, "b")
    assert split_at_images("a", []) == ("a",)


def test_no_text_of_a_client_stands_for_an_image() -> None:
    image, other = EncodedImage(encoded()), EncodedImage(encoded())
    assert image.marker != other.marker
    assert split_at_images(other.marker, [image.marker]) == (other.marker,)


def test_a_shown_prompt_has_the_tags_of_ollama() -> None:
    images = [EncodedImage("x"), EncodedImage("y")]
    assert shown_prompt(text_with_images("a", images), images) == "[img-0][img-1]a"
