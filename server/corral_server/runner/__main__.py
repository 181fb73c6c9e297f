"""``python -m corral_server.runner``."""

from corral_server.runner.main import main

main()
