"""Runners as child processes: start and end, status, memory."""
