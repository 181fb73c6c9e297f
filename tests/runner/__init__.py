"""Tests of the runner: the engine with a real model, and the API over it."""
