"""OCI distribution protocol: manifests, blobs and authentication of a registry."""
