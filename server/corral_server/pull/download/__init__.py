"""Downloads of remote files into a store: parallel, resumable, verified."""
