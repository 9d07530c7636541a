"""Failpoints: stop or kill the whole mgr before or after a step, switched on by the environment at start.

``VDISK_FAILPOINT=<step>:<before|after>:<kill|stop>``, several separated by commas; ``*`` matches every step. ``kill``
is SIGKILL, ``stop`` SIGSTOP. Without the variable nothing of this exists at run time.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping

VARIABLE = "VDISK_FAILPOINT"
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def from_environment(environment: Mapping[str, str]) -> Callable[[str, str], None] | None:
    """Return the failpoint function for the executor, None when the variable is unset; ``ValueError`` if malformed."""
    text = environment.get(VARIABLE)
    if not text:
        return None
    points: dict[tuple[str, str], signal.Signals] = {}
    for part in text.split(","):
        fields = part.strip().split(":")
        if len(fields) != 3 or fields[1] not in ("before", "after") or fields[2] not in _SIGNALS:
            raise ValueError(f"{VARIABLE}: {part!r} is not <step>:<before|after>:<kill|stop>")
        points[fields[0], fields[1]] = _SIGNALS[fields[2]]

    def hit(step: str, moment: str) -> None:
        found = points.get((step, moment)) or points.get(("*", moment))
        if found is not None:
            os.kill(os.getpid(), found)

    return hit
