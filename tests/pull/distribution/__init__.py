"""Tests of the client of registries, against a registry in the test's memory."""
