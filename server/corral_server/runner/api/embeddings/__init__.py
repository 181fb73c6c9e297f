"""Embeddings for Ollama's and OpenAI's endpoints."""
