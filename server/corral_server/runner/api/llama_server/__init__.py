"""Endpoints of llama.cpp's server that Ollama does not have: rerank, tokenize, detokenize and infill."""
