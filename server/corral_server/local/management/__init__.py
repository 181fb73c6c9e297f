"""Models that clients create in local mode: their files and uploaded weights."""
