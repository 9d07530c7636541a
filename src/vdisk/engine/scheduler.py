"""The scheduler: looks when a schedule is due and has its snapshots taken and pruned (``engine.runs``).

What is due follows from records in the pools alone, so a failover or a stop of any length loses nothing: what fell due
meanwhile is taken once. In memory are only the moments at which there is something to do, and what fails.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

from ..model.errors import NoSpace, NotFound, NotReady, VdiskError
from ..model.names import Kind
from ..model.objects import rfc3339
from ..model.observed import Location
from ..model.records import Store
from ..model.schedules import (
    RUN,
    SCHEDULE,
    Failure,
    Run,
    Schedule,
    next_event,
    run_from_text,
    schedule_from_text,
    set_back,
    wanted,
)
from .clock import Clock
from .engine import Engine
from .health import HealthBoard, Severity
from .operation import Operation
from .ports import Cluster
from .runs import Job, Removed, Runs, Settings, Stopped
from .workers import Workers

#: Code of the health check; what mutes it.
CODE = "VDISK_SCHEDULE_FAILING"
#: Threads that read schedules and see to what is due; the work itself is the engine's.
_THREADS = 8
#: Names of volumes that a schedule of a whole pool reads at a time; after each lot its progress is recorded.
_LOT = 256
#: Seconds between two looks for pools and namespaces that are new, renamed or gone.
_SCAN = 60.0
#: Seconds after which a location that could not be read is tried again.
_AGAIN = 5.0
#: Seconds to wait for a change of a schedule before looking at what there is.
_FOLLOW = 60.0

_Place = tuple[int, str]


@dataclass(frozen=True)
class Roster:
    """The schedules of a location as they were read. ``unreadable`` are keys and why this version can't read them."""

    schedules: tuple[Schedule, ...] = ()
    runs: dict[str, Run] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)


@dataclass
class _Known:
    """What is remembered of a location. Changes under the scheduler's lock.

    ``events`` are the moments at which there is something to do and ``troubles`` what an operator has to know, by the
    schedule's id (by key where that can't be read). ``again`` is a monotonic time before which not to look.
    ``unrecorded`` are last runs by id that could not be written because the pool is full.
    """

    where: Location
    reading: bool = False
    stale: bool = True
    again: float = 0.0
    events: dict[str, float] = field(default_factory=dict)
    troubles: dict[str, str] = field(default_factory=dict)
    unrecorded: dict[str, Run] = field(default_factory=dict)
    any: bool = False
    """It has schedules, as far as is known."""
    read: bool = False
    """It was read since the start."""


def read(cluster: Cluster, where: Location) -> Roster:
    """Read the schedules of a location and how their last runs went."""
    schedules: list[Schedule] = []
    runs: dict[str, Run] = {}
    unreadable: dict[str, str] = {}
    for key, text in cluster.survey_records(where, Store.SCHEDULES, RUN):
        try:
            if key.startswith(RUN):
                runs[key.removeprefix(RUN)] = run_from_text(text)
            elif key.startswith(SCHEDULE):
                found = schedule_from_text(text)
                if found.key != key:
                    raise ValueError(f"it says that its key is {found.key}")
                schedules.append(found)
        except ValueError as error:
            unreadable[key] = str(error)
    return Roster(tuple(schedules), runs, unreadable)


class Scheduler:
    """Runs schedules in every pool and namespace; one that hangs holds up no other. Any thread may call."""

    def __init__(
        self,
        cluster: Cluster,
        engine: Engine,
        settings: Settings,
        board: HealthBoard,
        log: logging.Logger,
        clock: Clock = Clock(),  # noqa: B008
    ) -> None:
        self.clock = clock
        self._cluster = cluster
        self._engine = engine
        self._board = board
        self._log = log
        self._changed = threading.Condition()
        self._known: dict[_Place, _Known] = {}
        self._under_way: set[str] = set()
        self._scanned = False
        self._scanning = False
        self._next_scan = 0.0
        self._stopping = False
        self._workers = Workers("vdisk-scheduler", lambda: _THREADS, log)
        self._runs = Runs(cluster, engine, settings, lambda: self._stopping, log)

    # -- from outside --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to look for what is due."""
        threading.Thread(target=self._work, name="vdisk-schedules", daemon=True).start()

    def stop(self) -> None:
        """Look no more; what is under way goes on at the next start."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._workers.stop(0.5)

    def follow(self, operation: Operation) -> None:
        """Take note of a change of schedules as soon as it is made."""
        where = operation.request.where

        def job() -> None:
            self._engine.wait(operation, _FOLLOW)
            self.poke(where)

        if operation.answered or operation.state.final:
            self.poke(where)
        else:
            self._workers.submit(where.pool_id, job)

    def poke(self, where: Location) -> None:
        """Have a location looked at anew."""
        with self._changed:
            known = self._known.setdefault((where.pool_id, where.namespace), _Known(where))
            known.stale, known.any = True, True
            self._changed.notify_all()

    def places(self, seconds: float) -> tuple[list[Location], list[Location]]:
        """Return where there are schedules, and which locations were never read since the start, for whatever reason.

        Waits at most ``seconds`` for those; ``NotReady`` while not even the pools are known.
        """

        def complete() -> bool:
            return self._scanned and all(known.read for known in self._known.values())

        with self._changed:
            self._changed.wait_for(complete, seconds)
            if not self._scanned:
                raise NotReady("the schedules of this cluster are still being read; try again")
            unread = sorted(known.where for known in self._known.values() if not known.read and not known.any)
            return sorted(known.where for known in self._known.values() if known.any), unread

    def running(self, schedule_id: str) -> bool:
        """Tell whether a schedule is at work at this moment."""
        with self._changed:
            return schedule_id in self._under_way

    def unrecorded(self, where: Location) -> dict[str, Run]:
        """Return the last runs, by schedule id, that could not be written because the pool is full."""
        with self._changed:
            known = self._known.get((where.pool_id, where.namespace))
            return {} if known is None else dict(known.unrecorded)

    # -- looking -------------------------------------------------------------------------------------------------

    def look(self, where: Location) -> None:
        """Read a location's schedules and carry out all that is due, on this thread."""
        for job in self._due(where):
            job()

    def scan(self) -> None:
        """Take note of pools and namespaces that are new, renamed or gone."""
        places = dict(self._places())
        with self._changed:
            for place, where in places.items():
                known = self._known.setdefault(place, _Known(where))
                known.where = where
            for place in set(self._known) - set(places):
                del self._known[place]
            self._scanned = True
            self._changed.notify_all()
        self._publish()

    def _places(self) -> Iterator[tuple[_Place, Location]]:
        for root in self._cluster.rbd_pools():
            try:
                namespaces = self._cluster.namespaces(root.pool_id, root.pool)
            except NotFound:
                continue  # the pool was removed meanwhile
            for namespace in ["", *namespaces]:
                yield (root.pool_id, namespace), Location(root.pool_id, root.pool, namespace)

    def _work(self) -> None:
        with self._changed:
            while not self._stopping:
                if time.monotonic() >= self._next_scan and not self._scanning:
                    self._scanning = True
                    self._workers.submit("scan", self._scan)
                now, due = self.clock.now(), self.clock.slice
                for known in self._known.values():
                    left = self._left(known, now)
                    if left <= 0:
                        known.reading, known.stale = True, False
                        self._workers.submit(known.where.pool_id, partial(self._read_and_run, known))
                    else:
                        due = min(due, left)
                self._changed.wait(due)

    def _left(self, known: _Known, now: float) -> float:
        """Return the seconds until a location has to be looked at. Caller holds the lock."""
        if known.reading:
            return self.clock.slice
        pause = known.again - time.monotonic()
        if pause > 0:
            return pause
        if known.stale:
            return 0.0
        events = [at for ident, at in known.events.items() if ident not in self._under_way]
        return min(events, default=now + self.clock.slice) - now

    def _scan(self) -> None:
        try:
            self.scan()
        except VdiskError as error:
            self._log.info("schedules: reading the list of pools failed, trying again: %s", error.message)
        finally:
            with self._changed:
                self._scanning = False
                self._next_scan = time.monotonic() + (_SCAN if self._scanned else _AGAIN)
                self._changed.notify_all()

    def _read_and_run(self, known: _Known) -> None:
        where = known.where
        again = 0.0
        try:
            for job in self._due(where):
                self._workers.submit(where.pool_id, job)
        except NotFound:
            with self._changed:
                self._known.pop((where.pool_id, where.namespace), None)
            self._publish()
        except VdiskError as error:
            self._log.info("reading the schedules of %s failed, trying again: %s", where, error.message)
            again = time.monotonic() + _AGAIN
        finally:
            with self._changed:
                known.reading = False
                known.stale = known.stale or again > 0
                known.again = again
                self._changed.notify_all()

    def _due(self, where: Location) -> list[Callable[[], None]]:
        """Read a location and return what is to be done there now, each part for a thread of its own."""
        found = read(self._cluster, where)
        now = self.clock.now()
        singles: list[tuple[Schedule, Run]] = []
        jobs: list[Callable[[], None]] = []
        with self._changed:
            known = self._known.setdefault((where.pool_id, where.namespace), _Known(where))
            known.any, known.read = bool(found.schedules or found.unreadable), True
            busy = set(self._under_way)
            idents = {schedule.id for schedule in found.schedules}
            known.events = {ident: at for ident, at in known.events.items() if ident in idents & busy}
            known.troubles = {key: _unreadable(where, key, why) for key, why in found.unreadable.items()}
            known.unrecorded = {ident: run for ident, run in known.unrecorded.items() if ident in idents}
            runs = {**found.runs, **known.unrecorded}
        for schedule in found.schedules:
            run = runs.get(schedule.id)
            if schedule.run_key in found.unreadable:
                continue
            back = set_back(schedule, run, now) if schedule.id not in busy else None
            if back is not None:
                run = self._record(where, schedule, back)
            self._note(where, schedule, run, now)
            wish = wanted(schedule, run, now)
            if wish is None or not self._claim(schedule):
                continue
            if schedule.every:
                jobs.append(partial(self._all, where, schedule, wish))
            else:
                singles.append((schedule, wish))
        if singles:
            jobs.append(partial(self._singles, where, singles))
        self._publish()
        return jobs

    def _claim(self, schedule: Schedule) -> bool:
        with self._changed:
            if schedule.id in self._under_way:
                return False
            self._under_way.add(schedule.id)
            return True

    def _leave(self, schedule: Schedule) -> None:
        with self._changed:
            self._under_way.discard(schedule.id)
            self._changed.notify_all()

    # -- carrying out --------------------------------------------------------------------------------------------

    def _singles(self, where: Location, due: list[tuple[Schedule, Run]]) -> None:
        """Carry out schedules of one volume each, side by side."""
        runs = {schedule.id: run for schedule, run in due}
        left = {schedule.id: schedule for schedule, _ in due}
        jobs = (self._runs.job(where, schedule, run.due, schedule.volume, schedule.name) for schedule, run in due)
        try:
            for job in self._runs.drive(jobs):
                run = _counted(replace(runs[job.schedule.id], taken=0, failed=0, failures=()), job)
                self._end(where, job.schedule, run)
                self._leave(left.pop(job.schedule.id))
        except Stopped:
            pass
        except VdiskError as error:
            self._log.info("schedules in %s: %s; trying again", where, error.message)
            self._pause(where)
        finally:
            for schedule in left.values():
                self._leave(schedule)

    def _all(self, where: Location, schedule: Schedule, run: Run) -> None:
        """Carry out a schedule of a whole location: all volumes, or those that failed before, lot by lot."""
        try:
            if run.finished_at:
                run = self._lot(where, schedule, run, [(f.name, f.volume) for f in run.failures], retry=True)
            else:
                here = replace(where, journal=schedule.journal)
                while names := self._cluster.names(here, Kind.VOLUME, run.after, _LOT):
                    run = self._record(where, schedule, self._lot(where, schedule, run, names))
            self._end(where, schedule, run)
        except (Stopped, Removed):
            pass
        except VdiskError as error:
            self._log.info("%s: %s; trying again", schedule.key, error.message)
            self._pause(where)
        finally:
            self._leave(schedule)

    def _lot(
        self, where: Location, schedule: Schedule, run: Run, names: list[tuple[str, str]], retry: bool = False
    ) -> Run:
        """Carry out a schedule for some volumes; returns the run as it is then."""
        if retry:
            run = replace(run, failed=0, failures=())
        here = replace(where, journal=schedule.journal)
        entries = self._cluster.entries(here, Kind.VOLUME, [uuid for _, uuid in names])
        # One that is being made, or was removed meanwhile, is none of a pool's volumes.
        there = [(name, uuid) for (name, uuid), entry in zip(names, entries) if entry and entry.image_id]
        jobs = (self._runs.job(where, schedule, run.due, uuid, name) for name, uuid in there)
        for job in self._runs.drive(jobs):
            if job.removed:
                raise Removed
            run = _counted(run, job)
        return run if retry else replace(run, after=names[-1][0])

    def _end(self, where: Location, schedule: Schedule, run: Run) -> None:
        """Record how a run ended, and tell of it."""
        now = self.clock.now()
        try:
            run = self._record(where, schedule, run.ended(now))
        except Removed:
            return
        if run.failing:
            why = run.failures[0].message if run.failures else "see the status"
            self._log.warning("schedule %s in %s: %d volume(s) failed: %s", schedule.key, where, run.failed, why)
        else:
            self._log.info("schedule %s in %s: %d snapshot(s) of %s", schedule.key, where, run.taken, rfc3339(run.due))
        self._note(where, schedule, run, now)
        self._publish()

    def _record(self, where: Location, schedule: Schedule, run: Run) -> Run:
        """Record how a run goes on. A full pool takes no records, and has to be told of all the same."""
        place, full = (where.pool_id, where.namespace), False
        try:
            self._runs.put(where, schedule, schedule.run_key, run.to_text())
        except NoSpace as error:
            self._log.warning("schedule %s in %s: recording its run failed: %s", schedule.key, where, error.message)
            full = True
        with self._changed:
            known = self._known.setdefault(place, _Known(where))
            known.unrecorded.pop(schedule.id, None)
            if full:
                known.unrecorded[schedule.id] = run
        return run

    def _pause(self, where: Location) -> None:
        """Look at a location again in a while, because it could not be read or written."""
        with self._changed:
            known = self._known.get((where.pool_id, where.namespace))
            if known is not None:
                known.stale, known.again = True, time.monotonic() + _AGAIN

    # -- telling -------------------------------------------------------------------------------------------------

    def _note(self, where: Location, schedule: Schedule, run: Run | None, now: float) -> None:
        """Remember when there is something to do for a schedule, and what is wrong with it."""
        with self._changed:
            known = self._known.get((where.pool_id, where.namespace))
            if known is None:
                return
            known.events[schedule.id] = next_event(schedule, run, now)
            known.troubles.pop(schedule.id, None)
            if run is not None and run.failing:
                known.troubles[schedule.id] = _failing(where, schedule, run)
            self._changed.notify_all()

    def _publish(self) -> None:
        with self._changed:
            lines = sorted(line for known in self._known.values() for line in known.troubles.values())
        if lines:
            self._board.set(CODE, Severity.WARNING, f"{len(lines)} snapshot schedule(s) of vdisk fail", lines)
        else:
            self._board.clear(CODE)


def _counted(run: Run, job: Job) -> Run:
    """Return a run with what came of one volume."""
    if job.error is not None:
        return run.with_failure(Failure(job.volume, job.name, f"{job.error.code}: {job.error.message}"))
    return run if job.removed else replace(run, taken=run.taken + 1)


def _failing(where: Location, schedule: Schedule, run: Run) -> str:
    target = str(where) if schedule.every else f"{where}/{schedule.name}"
    what = f"every volume of {target}" if schedule.every else f"volume {target}"
    first = run.failures[0] if run.failures else None
    why = "" if first is None else f" ({first.name}: {first.message})" if schedule.every else f" ({first.message})"
    good = f"the last good run was that of {rfc3339(run.good)}" if run.good else "no run was good so far"
    return (
        f"{what}, {schedule}: {run.failed} failed at {rfc3339(run.due)}{why}; {good}; "
        f"see 'ceph vdisk schedule status {target}'"
    )


def _unreadable(where: Location, key: str, why: str) -> str:
    return f"{where}: {key} in {Store.SCHEDULES.value} can't be read by this version and is kept as it is: {why}"
