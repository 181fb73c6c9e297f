"""The tests mirror the code: one folder a package, one file a module."""
