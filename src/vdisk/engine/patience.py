"""Waiting on the module's one command thread: long enough for what is asked, not longer than fair to who queues behind.

A command that waits for a hung image would hold up every other command of the module. So after a fair slice
the wait goes on only as long as nobody else wants the thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds that a command may always wait: more than an operation takes with the monitors at their defaults.
FAIR_SLICE = 2.0
_LOOK_AGAIN = 0.25

GiveWay = Callable[[], bool]


def never() -> bool:
    """Give way to nobody: for callers with a thread of their own."""
    return False


def patient(wait: Callable[[float], bool], seconds: float, give_way: GiveWay = never) -> bool:
    """Call ``wait(timeout)`` until it returns true, ``seconds`` are over, or others want the thread.

    ``wait`` blocks at most its timeout and returns whether the condition came true.
    """
    end = time.monotonic() + seconds
    turn = FAIR_SLICE
    while True:
        left = end - time.monotonic()
        if wait(max(0.0, min(left, turn))):
            return True
        if left <= turn or give_way():
            return False
        turn = _LOOK_AGAIN
