"""Models and runner endpoints, as the gateway looks them up."""
