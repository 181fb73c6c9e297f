"""Entry point of ``python -m corral_server.gateway``. SIGTERM gets a handler before the slow imports."""

from corral_server.system.signals import exit_on_sigterm

exit_on_sigterm()

from corral_server.gateway.main import main  # noqa: E402  # after the handler

main()
