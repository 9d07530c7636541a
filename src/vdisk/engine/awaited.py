"""Which operations wait for which images to go."""

from __future__ import annotations

from .operation import Operation
from .waiting import Key


class Awaited:
    """What operations wait for, by what it is. Not thread-safe: the engine's lock is held around every call."""

    def __init__(self) -> None:
        self._waiters: dict[Key, set[str]] = {}

    def wait_for(self, operation: Operation, keys: frozenset[Key]) -> None:
        """Have an operation wait for these images, and for no others."""
        for key in operation.awaits - keys:
            waiters = self._waiters.get(key, set())
            waiters.discard(operation.id)
            if not waiters:
                self._waiters.pop(key, None)
        for key in keys - operation.awaits:
            self._waiters.setdefault(key, set()).add(operation.id)
        operation.awaits = keys

    def gone(self, key: Key) -> set[str]:
        """Take note that an image is gone; returns the ids of the operations that waited for it."""
        return self._waiters.pop(key, set())
