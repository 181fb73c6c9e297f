"""Real servers that the tests of the puller start: registries, object stores."""
