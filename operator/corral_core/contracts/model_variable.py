"""Environment variables that carry a runner's Model: the contract between operator or local mode and the runner.

- The Model is JSON in ``CORRAL_MODEL``. Text beyond ``MAX_PART_BYTES`` continues in ``CORRAL_MODEL_2`` and so on.
- Linux refuses to start a program with a variable of 128 KiB or more (``MAX_ARG_STRLEN``, execve(2)). A valid Model is
  larger when its template and system prompt have long text that is not ASCII: their limits count characters.
- All variables of a process together may have 2 MiB with the usual stack limit of 8 MiB (execve(2)); the largest valid
  Model stays far below that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

NAME = "CORRAL_MODEL"

MAX_PART_BYTES = 120_000
"""Maximum bytes of one value as UTF-8."""


def model_variables(text: str) -> dict[str, str]:
    """Return the variables that carry ``text``; lone surrogates, which UTF-8 cannot carry, become ``?``."""
    return {_name(index): part for index, part in enumerate(_parts(text.encode(errors="replace")), start=1)}


def model_text(environ: Mapping[str, str]) -> str:
    """Return the text that the variables carry, empty without them."""
    parts: list[str] = []
    while (part := environ.get(_name(len(parts) + 1))) is not None:
        parts.append(part)
    return "".join(parts)


def _parts(data: bytes) -> Iterator[str]:
    """Cut between characters: a byte of the form 10xxxxxx continues one."""
    start = 0
    while start == 0 or start < len(data):
        end = min(start + MAX_PART_BYTES, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        yield data[start:end].decode()
        start = max(end, 1)


def _name(number: int) -> str:
    return NAME if number == 1 else f"{NAME}_{number}"
