"""The documentation's command lines, as something that runs: see `doc/testing.md`, "The documentation"."""
