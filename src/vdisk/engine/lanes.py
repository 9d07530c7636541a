"""Turns: removals that need the lock of the same image go one after the other.

A clone whose parent's snapshot is in librbd's trash namespace takes that snapshot along when it goes, for which librbd
opens the parent and takes its exclusive lock. Two at a time take the lock from each other, a second each time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from .waiting import Key

#: Seconds after which a turn that was given and not taken goes to the next.
_LEASE = 60.0


@dataclass
class _Lane:
    """Who has the turn, since when if it was only given, and who comes next."""

    owner: Key | None = None
    given_at: float | None = None
    queue: deque[Key] = field(default_factory=deque)


class Lanes:
    """Turns by the image that is needed. Thread-safe."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._lanes: dict[Key, _Lane] = {}

    def enter(self, lane: Key, who: Key) -> bool:
        """Take the turn; False when somebody else has it, in which case :meth:`leave` will name ``who`` in time."""
        with self._lock:
            found = self._lanes.setdefault(lane, _Lane())
            stale = found.given_at is not None and self._clock() - found.given_at > _LEASE
            if found.owner is None or found.owner == who or stale:
                found.owner, found.given_at = who, None
                if who in found.queue:
                    found.queue.remove(who)
                return True
            if who not in found.queue:
                found.queue.append(who)
            return False

    def leave(self, lane: Key, who: Key) -> Key | None:
        """Give the turn up; returns whose it is now."""
        with self._lock:
            found = self._lanes.get(lane)
            if found is None or found.owner != who:
                return None
            if not found.queue:
                del self._lanes[lane]
                return None
            found.owner, found.given_at = found.queue.popleft(), self._clock()
            return found.owner
