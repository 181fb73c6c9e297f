"""Errors, JSON fields, durations, quantities, names, settings and metrics: what every other package builds on."""
