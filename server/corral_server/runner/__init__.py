"""Runner: the inference server of one model, one process with all APIs."""
