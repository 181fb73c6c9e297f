"""Images of requests: their pixels, their encoding by the projector, their decoding into the KV cache."""
