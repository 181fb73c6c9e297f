"""What runner pods with GPUs need of the cluster besides the GPUs."""
