"""GGUF headers and what follows from them: metadata, dimensions, load config and memory estimate."""
