"""The plugin ``kubectl corral``: what Models do and wait for, their logs, load and unload, API keys of a namespace."""
