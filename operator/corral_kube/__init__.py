"""The API server as operator and gateway use it: the one place that knows the kubernetes client."""
