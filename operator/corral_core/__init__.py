"""What every part of Corral shares: the Model resource and the decisions about it. No framework, no I/O of its own."""
