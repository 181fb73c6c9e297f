"""What the gateway needs of the API server, in parts; ``gateway.kube_directory`` puts them together."""
