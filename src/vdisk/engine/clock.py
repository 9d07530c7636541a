"""The clock that snapshot schedules go by: the time of day, or for tests what a file says.

With ``VDISK_SCHEDULE_CLOCK=@<file>`` in the environment of the mgr the file's content is the present, in seconds since
the epoch, read anew each time, so that years can pass in seconds; without the file it is the time of day. Who turns it
writes another file and moves it there: one that is being written is empty for a moment. Without the variable none of
this exists at run time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "VDISK_SCHEDULE_CLOCK"


@dataclass(frozen=True)
class Clock:
    """``now`` returns seconds since the epoch; ``slice`` is how many seconds one may sleep without looking at it."""

    now: Callable[[], float] = time.time
    slice: float = 5.0


def from_environment(environment: Mapping[str, str]) -> Clock:
    """Return the clock; ``ValueError`` when the variable is malformed."""
    text = environment.get(VARIABLE)
    if not text:
        return Clock()
    if not text.startswith("@"):
        raise ValueError(f"{VARIABLE}: {text!r} is not @<file>")
    path = Path(text[1:])

    def now() -> float:
        try:
            return float(path.read_text())
        except FileNotFoundError:
            return time.time()

    return Clock(now, 0.02)
