"""Resolvers: each turns sources of some schemes into pinned remote files."""
