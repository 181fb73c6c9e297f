"""What the processes exchange: demand, runner status, model metadata, termination message."""
