"""Failpoints: stop or kill the whole mgr before or after a step, switched on by the environment at start.

``VDISK_FAILPOINT=<step>:<before|after>:<kill|stop>``, several separated by commas; ``*`` matches every step. ``kill``
is SIGKILL, ``stop`` SIGSTOP. ``VDISK_FAILPOINT=@<file>`` reads the points from a file at each step, so that tests can
change them while the mgr runs; a file that is not there means none. Without the variable none of this exists at run
time.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

VARIABLE = "VDISK_FAILPOINT"
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}

Points = Mapping[tuple[str, str], signal.Signals]


def from_environment(environment: Mapping[str, str]) -> Callable[[str, str], None] | None:
    """Return the failpoint function for the executor, None when the variable is unset; ``ValueError`` if malformed."""
    text = environment.get(VARIABLE)
    if not text:
        return None
    if text.startswith("@"):
        path = Path(text[1:])
        return lambda step, moment: _hit(_read(path), step, moment)
    points = parse(text)
    return lambda step, moment: _hit(points, step, moment)


def parse(text: str) -> Points:
    """Parse ``<step>:<before|after>:<kill|stop>[,...]``; ``ValueError`` if malformed."""
    points: dict[tuple[str, str], signal.Signals] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        fields = part.split(":")
        if len(fields) != 3 or fields[1] not in ("before", "after") or fields[2] not in _SIGNALS:
            raise ValueError(f"{VARIABLE}: {part!r} is not <step>:<before|after>:<kill|stop>")
        points[fields[0], fields[1]] = _SIGNALS[fields[2]]
    return points


def _read(path: Path) -> Points:
    try:
        return parse(path.read_text())
    except FileNotFoundError:
        return {}


def _hit(points: Points, step: str, moment: str) -> None:
    found = points.get((step, moment)) or points.get(("*", moment))
    if found is not None:
        # To this very thread: a stop signal for the process may reach another one first, and this one would run on.
        signal.pthread_kill(threading.get_ident(), found)
