"""GPUs as nodes offer them and as Models request them."""
