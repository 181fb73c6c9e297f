"""Tests of remote sources in local mode."""
