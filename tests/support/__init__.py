"""Real servers for tests, each in its own process group."""
