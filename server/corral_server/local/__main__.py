"""``python -m corral_server.local`` is ``corral``."""

from corral_server.local.cli.main import main

if __name__ == "__main__":
    main()
