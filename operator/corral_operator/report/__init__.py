"""Reporting: a Model's status, its conditions, and Events."""
