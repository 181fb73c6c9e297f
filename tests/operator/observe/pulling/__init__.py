"""Tests of the observation of pulls."""
