"""Peers: the other gateway replicas, discovered by EndpointSlices, which exchange usage reports."""
