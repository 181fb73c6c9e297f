"""The server that commands start in the background, and its log."""
