"""``python -m corral_server.gateway``."""

from corral_server.gateway.main import main

main()
