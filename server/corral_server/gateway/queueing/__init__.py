"""Request queue: admission, assignment of slots, demand, backoff of endpoints."""
