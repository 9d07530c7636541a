"""Snapshot schedules as they are kept in the omap object ``vdisk.schedules`` (doc/internals.md has the format).

Three kinds of record: ``schedule.<target>.<minutes>.<start>`` is a schedule, ``run.<id>`` how its last run went, and
``made.<id>.<volume>`` which snapshots of a volume it has made. Times in seconds since the epoch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any

from .timing import Retention, format_interval, latest, parse_retention, upcoming

_VERSION = 1
#: Target of a schedule that covers every volume of its pool and namespace.
EVERY = "all"
SCHEDULE, RUN, MADE = "schedule.", "run.", "made."
#: Failures of a run that are remembered one by one; when there are more, all volumes are gone through again.
MAX_FAILURES = 100
_RETRY_SECONDS = 60.0
_MAX_RETRY_SECONDS = 3600.0


@dataclass(frozen=True)
class Schedule:
    """Snapshots of the volume ``volume`` (a uuid), or of all (:data:`EVERY`), every ``minutes``.

    ``start`` is the minute of the day (UTC) that intervals count from, ``name`` the volume's name when the schedule was
    made, ``journal`` the instance of the journal that it works with.
    """

    id: str
    volume: str
    name: str
    minutes: int
    start: int | None
    keep: Retention
    journal: str
    created_at: float

    @property
    def key(self) -> str:
        """Key of the record: there is one schedule of an interval and start time for a target."""
        return schedule_key(self.volume, self.minutes, self.start)

    @property
    def run_key(self) -> str:
        """Key of the record of its last run."""
        return RUN + self.id

    @property
    def every(self) -> bool:
        """It covers all volumes of its pool and namespace."""
        return self.volume == EVERY

    def made_key(self, volume: str) -> str:
        """Key of the record of what it has made of a volume."""
        return f"{self.made_prefix}{volume}"

    @property
    def made_prefix(self) -> str:
        """What the keys of its records of snapshots begin with."""
        return f"{MADE}{self.id}."

    def snapshot_name(self, volume: str, due: float) -> str:
        """Return the request name of the snapshot of a volume that is due at a moment; no other has it."""
        moment = datetime.fromtimestamp(due, timezone.utc).strftime("%Y-%m-%d-%H_%M_UTC")
        return f"scheduled-{moment}-{self.id}-{volume}"

    def upcoming(self, now: float) -> float:
        """Return when it is due next."""
        return upcoming(self.minutes, self.start, max(now, self.created_at))

    def __str__(self) -> str:
        return f"every {format_interval(self.minutes)}"

    def to_text(self) -> str:
        """Return the durable form."""
        return json.dumps(
            {
                "v": _VERSION,
                "id": self.id,
                "volume": self.volume,
                "name": self.name,
                "minutes": self.minutes,
                "start": self.start,
                "keep": str(self.keep),
                "journal": self.journal,
                "created_at": self.created_at,
            },
            sort_keys=True,
        )


def schedule_key(volume: str, minutes: int, start: int | None) -> str:
    """Return the key of a schedule."""
    return f"{SCHEDULE}{volume}.{minutes}.{'-' if start is None else start}"


def schedule_from_text(text: str) -> Schedule:
    """Rebuild a schedule; raises ``ValueError`` for what this version can't read, which is then left alone."""
    data = _decoded(text)
    try:
        keep = str(data["keep"])
        start = data["start"]
        found = Schedule(
            str(data["id"]),
            str(data["volume"]),
            str(data["name"]),
            int(data["minutes"]),
            None if start is None else int(start),
            parse_retention(keep) if keep else Retention(),
            str(data["journal"]),
            float(data["created_at"]),
        )
    except Exception as error:
        raise ValueError(f"field {error}") from error
    if found.minutes <= 0 or not found.id or not found.volume:
        raise ValueError("a field has no sensible value")
    return found


@dataclass(frozen=True)
class Failure:
    """A volume that a run could not snapshot, or whose snapshots it could not prune, and why."""

    volume: str
    name: str
    message: str


@dataclass(frozen=True)
class Run:
    """A run of a schedule: all that was due at ``due``.

    ``finished_at`` is 0 while volumes have not been gone through yet; ``after`` is the name of the last one that has.
    ``taken`` counts this run's snapshots, ``made`` those of all runs before it. ``failed`` counts volumes, of which
    ``failures`` names the first; they are tried again from ``next_try`` on, ``attempts`` have been made. ``good`` is
    the last run in which nothing failed. A run that began at 0 never was one: it only says where to go on.
    """

    due: float
    started_at: float = 0.0
    finished_at: float = 0.0
    after: str = ""
    taken: int = 0
    made: int = 0
    failed: int = 0
    failures: tuple[Failure, ...] = ()
    attempts: int = 0
    next_try: float = 0.0
    good: float = 0.0

    @property
    def total(self) -> int:
        """How many snapshots the schedule has made in all."""
        return self.made + self.taken

    @property
    def failing(self) -> bool:
        """Something of it failed."""
        return self.failed > 0

    @property
    def unfinished(self) -> bool:
        """Volumes are left that it has not come to, or that failed."""
        return self.started_at > 0 and (self.failing or self.finished_at == 0)

    def begin(self, due: float, now: float) -> Run:
        """Return the run that follows this one."""
        return Run(due, now, made=self.total, good=self.good)

    def again(self, now: float) -> Run:
        """Return this run as it is when it is gone on with; failures that are not all known mean going through all."""
        if self.finished_at and self.failed > len(self.failures):
            return replace(self, after="", finished_at=0.0, taken=0, failed=0, failures=(), next_try=now)
        return replace(self, next_try=now)

    def with_failure(self, failure: Failure) -> Run:
        """Return this run with one failure more."""
        return replace(self, failed=self.failed + 1, failures=(*self.failures, failure)[:MAX_FAILURES])

    def ended(self, now: float) -> Run:
        """Return this run when every volume was gone through (or tried again)."""
        if not self.failing:
            return replace(self, finished_at=now, next_try=0.0, attempts=0, good=self.due)
        return replace(self, finished_at=now).postponed(now)

    def postponed(self, now: float) -> Run:
        """Return this run with its next try later and later."""
        delay = min(_RETRY_SECONDS * 2 ** min(self.attempts, 10), _MAX_RETRY_SECONDS)
        return replace(self, attempts=self.attempts + 1, next_try=now + delay)

    def to_text(self) -> str:
        """Return the durable form."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        failures = [[found.volume, found.name, found.message] for found in self.failures]
        return json.dumps({"v": _VERSION, **fields, "failures": failures}, sort_keys=True)


def run_from_text(text: str) -> Run:
    """Rebuild the record of a run; raises ``ValueError`` for what this version can't read."""
    data = _decoded(text)
    try:
        return Run(
            float(data["due"]),
            float(data["started_at"]),
            float(data["finished_at"]),
            str(data["after"]),
            int(data["taken"]),
            int(data["made"]),
            int(data["failed"]),
            tuple(Failure(str(volume), str(name), str(message)) for volume, name, message in data["failures"]),
            int(data["attempts"]),
            float(data["next_try"]),
            float(data["good"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"field {error}") from error


def set_back(schedule: Schedule, run: Run | None, now: float) -> Run | None:
    """Return the run to go on from when the last one lies in the future because the clock was set back, else None.

    Without this a clock that once was years ahead would keep the schedule still for years.
    """
    base = schedule.created_at if run is None else run.due
    if base <= now:
        return None
    due = latest(schedule.minutes, schedule.start, now)
    return Run(due) if run is None else replace(run, due=due, started_at=0.0, next_try=0.0, after="")


def wanted(schedule: Schedule, run: Run | None, now: float) -> Run | None:
    """Return the run to carry out now, None when there is none.

    What fell due while nobody was there is taken once, and only the last of it; what is unfinished of an earlier run is
    given up for it.
    """
    due = latest(schedule.minutes, schedule.start, now)
    if due > (schedule.created_at if run is None else run.due):
        return (run or Run(0.0)).begin(due, now)
    if run is not None and run.unfinished and now >= run.next_try:
        return run.again(now)
    return None


def next_event(schedule: Schedule, run: Run | None, now: float) -> float:
    """Return when there is something to do for a schedule: its next run, or the next try of the last one."""
    due = schedule.upcoming(now)
    return min(due, run.next_try) if run is not None and run.unfinished else due


@dataclass(frozen=True)
class Made:
    """The snapshots of a volume that a schedule has made and not removed: when they were due → uuid.

    This, and not how a snapshot is called, is what makes it the schedule's own.
    """

    snaps: Mapping[float, str] = field(default_factory=dict)

    def to_text(self) -> str:
        """Return the durable form."""
        return json.dumps({"v": _VERSION, "snaps": [[due, uuid] for due, uuid in sorted(self.snaps.items())]})


def made_from_text(text: str | None) -> Made:
    """Rebuild the record of snapshots, an empty one of None; raises ``ValueError`` for what can't be read."""
    if text is None:
        return Made()
    try:
        return Made({float(due): str(uuid) for due, uuid in _decoded(text)["snaps"]})
    except (KeyError, TypeError) as error:
        raise ValueError(f"field {error}") from error


def _decoded(text: str) -> Mapping[str, Any]:
    data = json.loads(text)
    if not isinstance(data, Mapping) or data.get("v") != _VERSION:
        raise ValueError(f"format version {data.get('v') if isinstance(data, Mapping) else None!r}")
    return data
