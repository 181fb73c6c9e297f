"""Formats of tool calls, one module per model family."""
