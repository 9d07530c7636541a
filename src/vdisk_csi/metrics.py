"""What the driver counts, for Prometheus."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)


class Metrics:
    """Counters of one driver process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._calls = Counter(
            "vdisk_csi_calls", "CSI calls that ended, by gRPC code", ["method", "code"], registry=self._registry
        )
        self._call_seconds = Histogram(
            "vdisk_csi_call_seconds", "How long CSI calls took", ["method"], buckets=_SECONDS, registry=self._registry
        )
        self._in_flight = Gauge("vdisk_csi_calls_in_flight", "CSI calls under way", ["method"], registry=self._registry)
        self._command_seconds = Histogram(
            "vdisk_csi_command_seconds",
            "How long the manager took to answer vdisk commands",
            ["command"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._pending = Gauge(
            "vdisk_csi_pending_operations", "Operations of vdisk that calls wait for", registry=self._registry
        )

    def observe_pending(self, count: Callable[[], int]) -> None:
        """Have the number of pending operations read from a function."""
        self._pending.set_function(count)

    def begin(self, method: str) -> None:
        """Count a call that begins."""
        self._in_flight.labels(method).inc()

    def end(self, method: str, code: str, seconds: float) -> None:
        """Count a call that ended."""
        self._in_flight.labels(method).dec()
        self._calls.labels(method, code).inc()
        self._call_seconds.labels(method).observe(seconds)

    @contextlib.contextmanager
    def command(self, words: str) -> Iterator[None]:
        """Count a vdisk command, whatever it answers."""
        start = time.monotonic()
        try:
            yield
        finally:
            self._command_seconds.labels(words).observe(time.monotonic() - start)

    def text(self) -> bytes:
        """Return Prometheus' text format."""
        return generate_latest(self._registry)
