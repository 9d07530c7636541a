"""The parts of the demonstration, `make demo`."""
