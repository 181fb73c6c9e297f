"""The inference engine: one thread that decodes all active sequences in one batch per step."""
