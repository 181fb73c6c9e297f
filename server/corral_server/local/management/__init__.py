"""Models that clients create in local mode: their files, uploaded weights, and the commands of ``corral``."""
