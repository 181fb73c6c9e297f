"""Tests of the containers that reach sources."""
