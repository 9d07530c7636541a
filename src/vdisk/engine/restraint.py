"""Lets answers come first: while many requests are under way, reclaiming space gets by with fewer threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from .workers import Timer, Workers

#: When a request finds more than this share of the workers at work, the reaper gets by with that share of its threads
#: for so many seconds: the space of what is deleted comes back after the answers, unless so many images wait for it.
_BUSY, _HELD_BACK, _HELD_SECONDS, _HELD_AT_MOST = 1 / 32, 1 / 32, 1.0, 1000


class Restraint:
    """How many threads may work in the background just now. ``changed`` is the engine's lock."""

    def __init__(self, changed: threading.Condition, timer: Timer) -> None:
        self._changed = changed
        self._timer = timer
        self._until = 0.0

    def asked(self, workers: Workers, most: int, held: Workers) -> None:
        """Take note of a request: with so many of ``most`` workers at work ``held`` steps back. Lock held."""
        if sum(workers.load()) <= most * _BUSY:
            return
        now = time.monotonic()
        holding, self._until = now < self._until, now + _HELD_SECONDS
        if not holding:
            self._timer.after(_HELD_SECONDS, lambda: self._let_go(held.nudge))

    def limit(self, threads: int, queued: int) -> int:
        """Return how many of so many threads may work, with so many jobs queued for them."""
        if time.monotonic() >= self._until or queued > _HELD_AT_MOST:
            return threads
        return max(1, int(threads * _HELD_BACK))

    def _let_go(self, nudge: Callable[[], None]) -> None:
        with self._changed:
            left = self._until - time.monotonic()
            if left > 0:
                self._timer.after(left, lambda: self._let_go(nudge))
                return
        nudge()
