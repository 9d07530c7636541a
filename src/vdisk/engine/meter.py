"""Counts what happens, where it happens: operations by kind and outcome, and how long they and their steps take.

Counting is an addition under a lock of its own, held for nothing else, so that neither work nor a reader of the
counters waits. Counters begin at 0 with the module, as monitoring expects of a process that was started anew.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

#: Upper bounds of the histograms' buckets, in seconds: from an omap write to a removal that takes minutes.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)

#: Outcomes of operations besides the codes of errors.
DONE, UNCHANGED, STUCK = "done", "unchanged", "stuck"


@dataclass
class Histogram:
    """How many observations fell into each bucket (the last one has no bound), and their sum in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def copy(self) -> Histogram:
        """Return what it holds now."""
        return Histogram(list(self.counts), self.total)


@dataclass(frozen=True)
class Readings:
    """What was counted since the module was loaded."""

    ended: Mapping[tuple[str, str], int]
    """(kind, outcome) → operations that ended; the outcome is ``done``, ``unchanged``, ``stuck`` or an error's code."""
    answers: Mapping[str, Histogram]
    """kind → seconds from taking an operation to its answer."""
    steps: Mapping[tuple[str, str], Histogram]
    """(kind, step) → seconds that a step took."""
    resumed: int
    """Operations that an earlier life of the module had begun."""


class Meter:
    """The counters of an engine. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: Counter[tuple[str, str]] = Counter()
        self._answers: dict[str, Histogram] = {}
        self._steps: dict[tuple[str, str], Histogram] = {}
        self._resumed = 0

    def ended(self, kind: str, outcome: str) -> None:
        """Count an operation that ended."""
        with self._lock:
            self._ended[kind, outcome] += 1

    def answered(self, kind: str, seconds: float) -> None:
        """Count an operation's answer, so many seconds after it was taken."""
        with self._lock:
            self._answers.setdefault(kind, Histogram()).observe(max(0.0, seconds))

    def step(self, kind: str, name: str, seconds: float) -> None:
        """Count a step that was carried out."""
        with self._lock:
            self._steps.setdefault((kind, name), Histogram()).observe(seconds)

    def resumed(self) -> None:
        """Count an operation that goes on after a start."""
        with self._lock:
            self._resumed += 1

    def read(self) -> Readings:
        """Return a copy of everything."""
        with self._lock:
            return Readings(
                dict(self._ended),
                {kind: found.copy() for kind, found in self._answers.items()},
                {key: found.copy() for key, found in self._steps.items()},
                self._resumed,
            )
