"""Headers between gateway and runner; clients neither send nor see them."""

RETRY = b"corral-retry"
"""A runner that did not begin a request answers 503 with this header: the gateway may send the request elsewhere."""

GATEWAY = b"corral-gateway"
"""Which gateway sends the request: the runner's activity says how many are active for each."""

QUEUED = b"corral-queued-ns"
"""How long the gateway held the request, in nanoseconds: Ollama's load_duration and total_duration include it."""

MODIFIED = b"corral-modified"
"""When the Model was last changed, in Unix seconds: a runner's /api/show says so, and cannot know it."""
