"""The serving side: gateway, runner and the local mode that joins them on one machine."""
