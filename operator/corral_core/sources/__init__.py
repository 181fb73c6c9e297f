"""Sources of weights: their URIs, and where pulled weights are in a store."""
