"""Blobs of clients in a repository of an OCI registry."""
