"""Parts of the memory estimate: contexts, the layers' weights, and their distribution over GPUs."""
