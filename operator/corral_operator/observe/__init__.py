"""Observation: the objects of the API server, the runners' status, and the cluster state made of them."""
