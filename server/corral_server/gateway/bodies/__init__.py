"""Request bodies: size limits, decompression, and the model name in them."""
