"""Tar archives with weights: extraction of one file, and its header before the download."""
