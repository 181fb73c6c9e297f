"""Load of a model into an engine: which layers go to which GPUs, the parts of the engine, and how long it takes."""
