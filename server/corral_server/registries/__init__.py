"""What clients of OCI registries share: challenges, logins of a docker config, error messages."""
