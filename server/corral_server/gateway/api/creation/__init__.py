"""``/api/create`` and the files that it is given, ``/api/blobs``."""
