"""An in-memory cluster with the behaviour of the real one, for tests that must run in seconds and break things."""
