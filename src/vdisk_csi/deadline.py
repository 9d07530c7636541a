"""How long a call may take."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
#: The share of the client's time that is kept for the answer itself, and its bound in seconds.
_SHARE, _MARGIN = 0.1, 1.0


class Deadline:
    """A point in time, on the monotonic clock."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Return the seconds that are left, never less than 0."""
        return max(0.0, self._end - self._clock())

    def within(self, seconds: float) -> Deadline:
        """Return a deadline at most so many seconds from now and never later than this one."""
        return Deadline(min(seconds, self.left()), self._clock)

    async def wait(self, awaitable: Awaitable[T]) -> T:
        """Wait for a result; raises ``TimeoutError``, and then leaves alone what it waited for."""
        return await asyncio.wait_for(asyncio.shield(awaitable), self.left())


def deadline_of(remaining: float | None, most: float) -> Deadline:
    """Return the deadline of a call whose client waits ``remaining`` seconds (None: for ever), ``most`` at most.

    It ends a little before the client's, so that the client hears what is the matter.
    """
    if remaining is None or remaining > most + _MARGIN:
        return Deadline(most)
    return Deadline(max(0.0, remaining - min(_MARGIN, _SHARE * remaining)))
