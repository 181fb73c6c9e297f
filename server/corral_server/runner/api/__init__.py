"""The HTTP APIs of the runner, one package per API."""
