"""Tests of corral_core: plain values, no processes."""
