"""Check code, documentation, chart and CRD for phrases that plain technical English does without.

usage: prose.py [--report] [FOLDER]

Each line that holds one of ``PHRASES`` is printed with what to write in its place, and the exit code is 1. With
``--report`` only the number of such lines in each file is printed, and the exit code is 0.

The phrases are the ones that made earlier texts hard to read: people in place of components ("nobody asks for it"),
speech in place of data ("what is said"), and idioms in place of the field's terms ("last words" for a termination
message). The list stays short: a phrase belongs on it when nearly every use of it is a mistake.

``LITERALS`` are not searched.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PHRASES: dict[str, str] = {
    r"nobody|somebody|whoever": "name the component, or use the passive voice",
    r"theirs": "repeat the noun",
    r"what always holds": "'Invariants:' and a list",
    r"(?:who|what) waits": "'pending requests'",
    r"those (?:of them )?who": "name the components",
    r"who (?:acts|asks|asked|gets|hears|leaves|left|has left|may|runs|speaks|is served)": "name the component",
    r"(?:is|are|was|were|be|been|being) told": "say what is sent, passed or reported, and by which component",
    r"told apart": "'distinguished'",
    r"(?:what|as) is said|is said (?:of|again|when|to)": "'reported', 'sent', or the noun",
    r"own word|a word on|says a word": "'status', 'value' or 'description'",
    r"last words": "'termination message'",
    r"one of whom|of which one": "two sentences",
    r"manners": "'an Ollama-compatible API'",
    r"asleep|goes to sleep|go to sleep": "'scaled to zero', 'unloaded' or 'idle'",
    r"hears?|heard": "'receives', 'observes' or 'is notified'",
    r"troubles?": "'failure', 'error' or 'problem'",
    r"anew": "'again'",
    r"for ever": "'forever', 'no limit' or 'never'",
    r"as yet": "'not yet' or 'for now'",
    r"of before": "'previous' or 'earlier'",
    r"mends?|mended": "'fix'",
    r"lets? go of": "'release'",
    r"makes? no sense": "'is invalid'",
}
"""Regular expressions, without regard to case and between word boundaries, and what to write instead."""

LITERALS = ("and nobody had read the paper",)
"""Texts with a phrase that stay as they are: texts of other projects, and prompts whose tokens are counted."""

SUFFIXES = (".md", ".py", ".yaml", ".yml", ".toml", ".txt", ".tpl", ".json", ".c")
NAMES = ("Dockerfile", "Makefile", "run", "llama-wheel", "pip")
"""Files without a suffix: of the repository, of ``.ci`` and of ``images``."""
FOLDERS = (
    "operator",
    "server",
    "tests",
    "bench",
    "scripts",
    "docs",
    "charts",
    "crds",
    "examples",
    "images",
    ".ci",
    ".github",
)

_EXCEPT = (Path("scripts/prose.py"), Path("tests/test_prose.py"))


def _pattern() -> re.Pattern[str]:
    """Return the phrases as one expression with a numbered group for each; ``_`` is a space and a word boundary."""
    groups = (f"(?P<p{number}>{text.replace(' ', '[ _]')})" for number, text in enumerate(PHRASES))
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(groups)})(?![^\W_])", re.IGNORECASE)


_PATTERN = _pattern()


class Finding(NamedTuple):
    """A phrase in a line of a file; ``line`` counts from 1."""

    path: Path
    line: int
    phrase: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.phrase!r}: write {self.instead}"


def files(root: Path) -> Iterator[Path]:
    """Yield the files to check, relative to ``root``."""
    found = [path for path in root.iterdir() if path.is_file()]
    for folder in FOLDERS:
        found += (path for path in (root / folder).rglob("*") if path.is_file() and not path.is_symlink())
    for path in sorted(path.relative_to(root) for path in found):
        if (path.suffix in SUFFIXES or path.name in NAMES) and path not in _EXCEPT:
            yield path


def findings(text: str, path: Path) -> Iterator[Finding]:
    """Yield the phrases in ``text``, at most one for each line. A phrase that a line break divides is not found."""
    hints = list(PHRASES.values())
    for number, line in enumerate(text.splitlines(), start=1):
        for literal in LITERALS:
            line = line.replace(literal, "")
        if (match := _PATTERN.search(line)) and match.lastgroup:
            yield Finding(path, number, match[0], hints[int(match.lastgroup[1:])])


def check(root: Path) -> list[Finding]:
    """Return every finding below ``root``."""
    return [found for path in files(root) for found in findings((root / path).read_text("utf-8"), path)]


def report(found: list[Finding]) -> Iterator[str]:
    """Yield one line for each file, the worst first, and one for all of them."""
    for path, count in Counter(finding.path for finding in found).most_common():
        yield f"{count:5d}  {path}"
    yield f"{len(found):5d}  lines in all"


def main(arguments: list[str]) -> int:
    """Print the findings; return the exit code."""
    only_report = "--report" in arguments
    folders = [Path(argument) for argument in arguments if argument != "--report"]
    found = check(folders[0] if folders else Path(__file__).resolve().parent.parent)
    for line in report(found) if only_report else found:
        print(line)
    return 1 if found and not only_report else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
