"""Carries operations out: durable intents, queues, workers, waiting, recovery."""
