"""Observation of pulls: puller pods, their progress, and the claims with the weights."""
