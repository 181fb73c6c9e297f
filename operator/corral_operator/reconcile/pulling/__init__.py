"""Pulls: the claim of a Model, the pods that resolve and pull its sources, and their network."""
