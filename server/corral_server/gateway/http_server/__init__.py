"""Server side of HTTP/1.1: client connections, request heads, limits, timeouts and TLS."""
