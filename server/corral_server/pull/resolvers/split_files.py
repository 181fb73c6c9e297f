"""Names of split GGUF files: ``<prefix>-00001-of-0000N.gguf``.

llama.cpp finds the other parts by the name of the first (``llama_split_prefix`` in ``src/llama.cpp``,
``get_gguf_split_info`` in ``common/download.cpp``), so all parts keep their names and lie in one folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from corral_core.sources.locate import MAX_PARTS

_SPLIT: Final = re.compile(
    r"(?P<prefix>.+)-(?P<index>[0-9]{5})-of-(?P<count>[0-9]{5})(?P<suffix>\.gguf)", re.IGNORECASE | re.DOTALL
)


@dataclass(frozen=True, slots=True)
class SplitName:
    """Path or name of one part: ``index`` counts from 1 to ``count``. ``suffix`` is ``.gguf`` as it was written."""

    prefix: str
    index: int
    count: int
    suffix: str = ".gguf"

    def part(self, index: int) -> str:
        """Return the path of another part."""
        return f"{self.prefix}-{index:05d}-of-{self.count:05d}{self.suffix}"

    def parts(self) -> tuple[str, ...]:
        """Return the paths of all parts in order. Raises ValueError if there are more than ``MAX_PARTS``."""
        if self.count > MAX_PARTS:
            raise ValueError(f"it is split into {self.count} parts, and at most {MAX_PARTS} are supported")
        return tuple(self.part(index) for index in range(1, self.count + 1))


def parse_split(path: str) -> SplitName | None:
    """Parse the path of a part, None if the file is not split."""
    match = _SPLIT.fullmatch(path)
    if match is None:
        return None
    index, count = int(match["index"]), int(match["count"])
    if count < 2 or not 1 <= index <= count:
        return None
    return SplitName(match["prefix"], index, count=count, suffix=match["suffix"])
