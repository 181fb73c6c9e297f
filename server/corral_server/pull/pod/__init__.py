"""Processes of resolver and puller pods: environment, progress, termination message."""
