"""The other gateways of the installation: what they hold, and how they learn what is held here."""
