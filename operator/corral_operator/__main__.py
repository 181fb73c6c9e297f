"""``python -m corral_operator``.

The first process of a container receives only the signals for which it has a handler. The handler for SIGTERM is set
before the imports, which take long enough for the pod to be terminated meanwhile; ``main`` replaces it.
"""

import os
import signal

signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))

from corral_operator.process.main import main  # noqa: E402  # see above

main()
