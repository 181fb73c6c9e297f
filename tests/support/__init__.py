"""Helpers that tests of every part share."""
