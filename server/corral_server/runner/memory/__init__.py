"""Memory of requests: one budget for all of them, reservations, and the size of what a body becomes."""
