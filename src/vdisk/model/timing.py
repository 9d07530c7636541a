"""When scheduled snapshots are due and which of them are kept: the languages that Ceph has for both, as arithmetic.

Intervals and start times are rbd's (``rbd mirror snapshot schedule``, ``rbd_support/schedule.py``): ``30m``, ``1h``,
``2d``, counted from the start time on 1970-01-01. Retention is that of CephFS (``snap_schedule``): ``24h7d4w3m``.
All times are seconds since the epoch, and days, weeks, months and years are those of UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import lru_cache

from .errors import InvalidArgument, OutOfRange

_INTERVAL = re.compile(r"([0-9]{1,9})([dhm]?)", re.ASCII)
_MINUTES = {"": 1, "m": 1, "h": 60, "d": 1440}
_MAX_MINUTES = 100 * 366 * 1440
_START = re.compile(
    r"(?:(?P<date>\d{4}-\d\d-\d\d)[T ])?(?P<time>\d\d:\d\d(?::\d\d)?) ?(?:Z|(?P<zone>[+-]\d\d):?(?P<minutes>\d\d))?",
    re.ASCII,
)
_KEEP = re.compile(r"([0-9]{1,6})([A-Za-z])", re.ASCII)
#: A period and what tells two of it apart, in the order in which they take their snapshots. ``%G-%V`` is the ISO week.
_PERIODS = {
    "n": "%Y-%m-%d %H:%M:%S",
    "h": "%Y-%m-%d %H",
    "d": "%Y-%m-%d",
    "w": "%G-%V",
    "m": "%Y-%m",
    "y": "%Y",
}
_KEEP_FORM = "numbers with n (any), h, d, w, m (months) or y, such as 24h7d4w3m"


def parse_interval(value: object, argument: str = "interval") -> int:
    """Parse ``30m``, ``1h``, ``2d`` or plain minutes; returns minutes, at least 1."""
    match = _INTERVAL.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InvalidArgument(f"{argument} {value!r} is no interval: give minutes, or a number with m, h or d")
    minutes = int(match[1]) * _MINUTES[match[2]]
    if minutes == 0:
        raise InvalidArgument(f"{argument} {value!r} is zero")
    if minutes > _MAX_MINUTES:
        raise OutOfRange(f"{argument} {value!r} is more than a hundred years")
    return minutes


def format_interval(minutes: int) -> str:
    """Write an interval as rbd does."""
    for unit in ("d", "h"):
        if minutes % _MINUTES[unit] == 0:
            return f"{minutes // _MINUTES[unit]}{unit}"
    return f"{minutes}m"


def parse_start_time(value: object, argument: str = "start_time") -> int:
    """Parse a time in ISO 8601 (``03:00``, ``03:00:00+02:00``, a whole date); returns the minute of the day in UTC.

    As in rbd, of a date only the time of day counts.
    """
    match = _START.fullmatch(value) if isinstance(value, str) else None
    bad = f"{argument} {value!r} is no time: give hours and minutes, in UTC or with an offset, such as 03:00+02:00"
    if match is None:
        raise InvalidArgument(bad)
    # The one form of an offset that Python 3.9 reads.
    zone = f"{match['zone']}:{match['minutes']}" if match["zone"] else ""
    try:
        moment = datetime.fromisoformat(f"{match['date'] or '2000-01-02'}T{match['time']}{zone}")
        offset = moment.utcoffset()
    except ValueError:
        raise InvalidArgument(bad) from None
    minutes = moment.hour * 60 + moment.minute
    return (minutes - (int(offset.total_seconds()) // 60 if offset is not None else 0)) % 1440


def format_start_time(minutes: int) -> str:
    """Write the minute of a day as rbd does: ``03:00:00``, in UTC."""
    return f"{minutes // 60:02}:{minutes % 60:02}:00"


def latest(minutes: int, start: int | None, now: float) -> float:
    """Return when a schedule was due last, at ``now`` or before."""
    origin = (start or 0) * 60.0
    period = minutes * 60.0
    return origin + (now - origin) // period * period


def upcoming(minutes: int, start: int | None, now: float) -> float:
    """Return when a schedule is due next, after ``now``."""
    return latest(minutes, start, now) + minutes * 60.0


@lru_cache(maxsize=8192)
def _mark(period: str, moment: float) -> str:
    """Return which hour, day and so on a moment is in. Pruning asks about the same moments again after each run."""
    return datetime.fromtimestamp(moment, timezone.utc).strftime(_PERIODS[period])


@dataclass(frozen=True)
class Retention:
    """How many snapshots to keep: (period, number) in the order of :data:`_PERIODS`; none at all keeps everything."""

    counts: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        return "".join(f"{count}{period}" for period, count in self.counts)

    def keeps(self, moments: Iterable[float]) -> set[float]:
        """Return which of the snapshots taken at these moments stay.

        Period by period, the latest snapshot of each hour, day and so on is kept, going back in time, until there are
        as many as wanted; one that an earlier period keeps does not count for a later one (as in ``snap_schedule``).
        """
        ordered = sorted(set(moments), reverse=True)
        if not self.counts:
            return set(ordered)
        kept: set[float] = set()
        for period, count in self.counts:
            left, last = count, None
            for moment in ordered:
                mark = _mark(period, moment)
                if mark != last:
                    last = mark
                    if moment not in kept:
                        kept.add(moment)
                        left -= 1
                        if left == 0:
                            break
        return kept


def parse_retention(value: object, argument: str = "keep") -> Retention:
    """Parse ``24h7d4w3m``; months are ``m`` or ``M``.

    Both are months in one release of ``snap_schedule`` or another, and minutes in the other: of the two meanings the
    one that keeps more is taken.
    """
    if not isinstance(value, str) or not value:
        raise InvalidArgument(f"{argument} is empty: give {_KEEP_FORM}")
    found = list(_KEEP.finditer(value))
    if "".join(match[0] for match in found) != value:
        raise InvalidArgument(f"{argument} {value!r} is no retention: give {_KEEP_FORM}")
    counts: dict[str, int] = {}
    for match in found:
        period = "m" if match[2] == "M" else match[2]
        if period not in _PERIODS:
            raise InvalidArgument(f"{argument} {value!r} has the unknown period {match[2]!r}: give {_KEEP_FORM}")
        if period in counts:
            raise InvalidArgument(f"{argument} {value!r} has the period {match[2]!r} twice")
        if int(match[1]) == 0:
            raise InvalidArgument(f"{argument} {value!r} keeps none of the period {match[2]!r}: leave it out")
        counts[period] = int(match[1])
    return Retention(tuple((period, counts[period]) for period in _PERIODS if period in counts))
