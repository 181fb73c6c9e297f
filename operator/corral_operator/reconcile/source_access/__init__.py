"""Containers that reach sources: the puller, and the network of pullers and resolvers."""
