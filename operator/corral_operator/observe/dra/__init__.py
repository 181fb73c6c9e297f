"""GPUs that DRA drivers publish, and what claims take of them."""
