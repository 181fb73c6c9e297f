"""Entry point of ``python -m corral_server.runner``.

Two things happen before the remaining modules are imported, because the imports take long enough to matter:

- SIGTERM gets a handler. As PID 1 of a container the process receives only signals that it handles. The runner replaces
  the handler when it starts to serve.
- The socket listens. The kubelet's first readiness probe then waits in the backlog until the runner answers; a refused
  probe would be repeated only a second later.
"""

import os

from corral_server.system.signals import exit_on_sigterm

exit_on_sigterm()

from corral_server.runner.lifecycle.process import listen_before_imports  # noqa: E402  # see above

listen_before_imports(os.environ)

from corral_server.runner.main import main  # noqa: E402  # see above

main()
