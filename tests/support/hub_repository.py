"""Repository of a hub, held in memory: commits, branches and tags, as the servers of ``hub_server`` show them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

LARGE_SUFFIXES = (".gguf", ".safetensors", ".bin")
"""Files that a hub keeps outside of git: they have a SHA-256 and are sent by the content server."""


@dataclass(frozen=True)
class Entry:
    """A file at a commit; ``changed`` is the last commit that changed it."""

    data: bytes
    changed: Commit

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def git_oid(self) -> str:
        """Object id of a git blob."""
        return hashlib.sha1(b"blob %d\0%b" % (len(self.data), self.data)).hexdigest()


@dataclass(frozen=True)
class Commit:
    """``time`` in seconds; the tree is in the repository."""

    id: str
    time: int


@dataclass
class Repository:
    """``gated_for`` and ``private_for`` are the tokens that may read the repository; None is one without that limit."""

    name: str
    gated_for: frozenset[str] | None = None
    private_for: frozenset[str] | None = None
    commits: dict[str, Mapping[str, Entry]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes | None], *, branch: str, time: int | None = None) -> str:
        """Add a commit that changes files, or deletes them (None), move the branch, and return the commit's id."""
        number = len(self.commits) + 1
        made = Commit(hashlib.sha1(f"{self.name}{number}".encode()).hexdigest(), number if time is None else time)
        tree = dict(self.commits.get(self.refs.get(branch, ""), {}))
        for path, data in files.items():
            if data is None:
                del tree[path]
            else:
                tree[path] = Entry(data, made)
        self.commits[made.id] = dict(sorted(tree.items()))
        self.refs[branch] = made.id
        return made.id

    def resolve(self, revision: str) -> str | None:
        """Return the commit of a branch, a tag, a commit or the first digits of one."""
        if revision in self.refs:
            return self.refs[revision]
        found = [commit for commit in self.commits if len(revision) >= 7 and commit.startswith(revision)]
        return found[0] if len(found) == 1 else None


def is_large(path: str) -> bool:
    """Return whether a hub keeps a file outside of git."""
    return path.endswith(LARGE_SUFFIXES)
