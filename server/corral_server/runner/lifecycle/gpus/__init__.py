"""GPUs of the runner: their health, and their metrics."""
