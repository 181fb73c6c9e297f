"""``python -m corral_server.gateway``.

As the first process of a container, it gets only the signals that it handles: SIGTERM has a handler before the imports,
which take long enough for a pod to be told to end meanwhile. Those who drain set their own one later.
"""

import os
import signal

signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))

from corral_server.gateway.main import main  # noqa: E402  # see above

main()
