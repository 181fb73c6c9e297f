"""Command line ``corral``: one module for each group of commands, and the parser."""
