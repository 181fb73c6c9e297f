"""Weights in the formats of Ollama's own converter: their markers, and their translation for llama.cpp."""
