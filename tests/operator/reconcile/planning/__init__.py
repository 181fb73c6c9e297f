"""Tests of the reconciliation of pulls."""
