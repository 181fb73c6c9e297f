"""Cells of the KV cache: which slot has which, reuse of beginnings, shifts and compaction."""
