"""Requests that the gateway answers itself, and the paths that it forwards."""
