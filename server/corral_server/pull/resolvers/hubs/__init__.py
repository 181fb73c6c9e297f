"""Hubs of models, Hugging Face and ModelScope: their APIs, and the choice of files in a repository."""
