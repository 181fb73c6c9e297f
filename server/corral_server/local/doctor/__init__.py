"""``corral doctor``: checks of this machine and of the installation."""
