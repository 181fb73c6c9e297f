"""The page for browsers at ``/ui``: its files, and the stream of the Models' state that it shows."""
