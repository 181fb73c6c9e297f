"""Shapes and texts of the HTTP APIs that more than one process speaks."""
