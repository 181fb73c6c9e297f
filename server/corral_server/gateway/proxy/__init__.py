"""One request on its way to a runner and its response on the way back."""
