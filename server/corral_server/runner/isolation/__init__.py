"""Isolation of untrusted input: a worker process that can be ended at any moment, and threads of low priority."""
