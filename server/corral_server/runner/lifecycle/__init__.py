"""The runner process: load, keep alive, drain, runner status and metrics."""
