"""Ollama's verbs on Models: pull of a new name, create, copy, delete and blobs."""
