"""``python -m corral_server.runner``.

As the first process of a container, it gets only the signals that it handles: SIGTERM has a handler before the imports,
which take long enough for a pod to be told to end meanwhile. Those who drain set their own one later. Its socket
listens before them too: the kubelet's first question then waits for the load, where a refused one would only be asked
again a second later.
"""

import os
import signal

signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))

from corral_server.runner.process import listen_early  # noqa: E402  # see above

listen_early(os.environ)

from corral_server.runner.main import main  # noqa: E402  # see above

main()
