"""Content that the tests of downloads by processes share."""

from __future__ import annotations

import hashlib
import random

from corral_core.sources.snapshot import FileRole
from corral_server.pull.remote_files import HttpLocation, RemoteFile

CONTENT = random.Random(1).randbytes(2_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()
FILE = RemoteFile("model.gguf", FileRole.WEIGHTS, HttpLocation("https://host/model"), len(CONTENT), DIGEST)
