"""The board of health checks: the one place through which the module tells the cluster what an operator must know.

The mgr keeps one set of checks a module and replaces it as a whole (``MgrModule.set_health_checks``), so whoever has
something to say puts it on the board, and the board publishes the union.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

#: Lines of detail that a check carries at most: the monitors keep them in their map.
_MAX_DETAIL = 50


class Severity(enum.Enum):
    """How bad it is; the values are the mgr's."""

    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Check:
    """A health check as ``ceph health detail`` shows it. ``summary`` is one line, ``detail`` one line a case."""

    severity: Severity
    summary: str
    detail: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the form that ``MgrModule.set_health_checks`` takes."""
        shown = list(self.detail[:_MAX_DETAIL])
        if len(self.detail) > _MAX_DETAIL:
            shown.append(f"... and {len(self.detail) - _MAX_DETAIL} more")
        return {
            "severity": self.severity.value,
            "summary": self.summary,
            "count": max(1, len(self.detail)),
            "detail": shown,
        }


class HealthBoard:
    """Named checks. ``publish`` gets all of them, by code, whenever one has changed. Any thread may call."""

    def __init__(self, publish: Callable[[dict[str, dict[str, Any]]], None]) -> None:
        self._publish = publish
        self._lock = threading.Lock()
        self._checks: dict[str, Check] = {}

    def set(self, code: str, severity: Severity, summary: str, detail: Iterable[str] = ()) -> None:
        """Raise or replace a check. ``code`` is in capitals and begins with ``VDISK_``: people mute checks by it."""
        self._put(code, Check(severity, summary, tuple(detail)))

    def clear(self, code: str) -> None:
        """Take a check away; one that is not there is no error."""
        self._put(code, None)

    def checks(self) -> dict[str, Check]:
        """Return the present checks by code."""
        with self._lock:
            return dict(self._checks)

    def _put(self, code: str, check: Check | None) -> None:
        # Published under the lock, so that of two changes the later one is what the cluster sees in the end.
        with self._lock:
            if self._checks.get(code) == check:
                return
            if check is None:
                del self._checks[code]
            else:
                self._checks[code] = check
            self._publish({name: found.to_dict() for name, found in sorted(self._checks.items())})
