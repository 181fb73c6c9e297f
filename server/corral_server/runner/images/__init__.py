"""Images of requests: base64, headers, limits, and their places in prompts."""
