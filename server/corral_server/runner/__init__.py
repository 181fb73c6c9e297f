"""The inference server: one model, one process, every API."""
