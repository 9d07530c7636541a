"""What a run of a schedule does with one volume: snapshot it, then remove the snapshots that retention does not keep.

Both are ordinary operations of the engine. A snapshot's request name follows from schedule, volume and due time, and
its uuid is recorded before it is asked for, so that a repeat after a crash is the same request; and nothing is removed
but what is recorded so and has its name still.
"""

from __future__ import annotations

import logging
import time
import uuid as uuids
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, replace

from ..lifecycle.base import Request
from ..lifecycle.removal import RemoveSnapshot
from ..lifecycle.snap_create import CreateSnapshot
from ..model.errors import AlreadyExists, Disconnected, Internal, NotFound, NotReady, Unsupported, VdiskError
from ..model.layout import Layout
from ..model.names import Kind
from ..model.objects import rfc3339
from ..model.observed import Location
from ..model.records import Store
from ..model.schedules import Made, Schedule, made_from_text, schedule_from_text
from .engine import Engine
from .operation import Operation
from .ports import Cluster

#: Volumes of one location that are worked on side by side, each an operation in the engine's queue.
SIDE_BY_SIDE = 32
#: Seconds that a run waits for an operation; it goes on without the run.
PATIENCE = 60.0
_LOOK = 0.5

Work = Generator[Operation, None, None]
"""Yields operations that have to settle before it can go on; raises the error that stopped it."""


class Stopped(Exception):
    """The module is being stopped: nothing is to be recorded any more, the next start goes on."""


class Removed(Exception):
    """The schedule was removed meanwhile: nothing of it is to be recorded any more."""


@dataclass(frozen=True)
class Settings:
    """Options, read anew each time."""

    snapshot_features: Callable[[], int]
    """Feature bits of the images made for snapshots."""
    keep_for: Callable[[], int]
    """Seconds for which a removed snapshot can be undeleted."""


@dataclass(eq=False)
class Job:
    """One volume of a run: whose, what is to be done, and how it ended.

    ``removed`` tells that the schedule was removed meanwhile.
    """

    schedule: Schedule
    volume: str
    name: str
    work: Work
    operation: Operation | None = None
    since: float = 0.0
    error: VdiskError | None = None
    removed: bool = False


class Runs:
    """Carries out what is due in one location. Blocks the caller's thread, and no more than that."""

    def __init__(
        self, cluster: Cluster, engine: Engine, settings: Settings, stopping: Callable[[], bool], log: logging.Logger
    ) -> None:
        self._cluster = cluster
        self._engine = engine
        self._settings = settings
        self._stopping = stopping
        self._log = log

    # -- side by side --------------------------------------------------------------------------------------------

    def drive(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Carry out jobs, some side by side, and yield each when it ended; raises :class:`Stopped` on a stop."""
        source = iter(jobs)
        active: list[Job] = []
        while True:
            while len(active) < SIDE_BY_SIDE and (job := next(source, None)) is not None:
                if self._advance(job):
                    active.append(job)
                else:
                    yield job
            if not active:
                return
            self._engine.wait_any((job.operation for job in active if job.operation is not None), _LOOK)
            self._check_stop()
            for job in [job for job in active if self._ready(job)]:
                if not self._advance(job):
                    active.remove(job)
                    yield job

    def _ready(self, job: Job) -> bool:
        operation = job.operation
        assert operation is not None
        return operation.answered or operation.state.final or time.monotonic() - job.since > PATIENCE

    def _advance(self, job: Job) -> bool:
        """Go on with a job as far as the next operation; False when it ended."""
        try:
            job.operation = next(job.work)
            job.since = time.monotonic()
            return True
        except StopIteration:
            return False
        except Removed:
            job.removed = True
        except Disconnected:
            raise  # nobody's failure: all of it is tried again with another connection
        except VdiskError as error:
            self._check_stop()  # what fails because the module stops has not failed
            job.error = error
        except Stopped:
            raise
        except Exception:
            self._log.exception("schedule %s of volume %s", job.schedule.key, job.volume)
            job.error = Internal("an unexpected error happened; see the mgr log")
        return False

    def _check_stop(self) -> None:
        if self._stopping():
            raise Stopped

    def _done(self, request: Request) -> Generator[Operation, None, Operation]:
        """Have a request carried out; raises its error, or ``NotReady`` when it takes too long."""
        operation = self._engine.submit(request)
        yield operation
        if operation.answered:
            return operation
        if operation.state.final and operation.error is not None:
            raise operation.error
        raise NotReady(f"operation {operation.id} ({request.kind} {operation.target}) is still under way")

    # -- one volume ----------------------------------------------------------------------------------------------

    def job(self, where: Location, schedule: Schedule, due: float, volume: str, name: str) -> Job:
        """Return the job for a volume."""
        where = replace(where, journal=schedule.journal)
        return Job(schedule, volume, name, self._work(where, schedule, due, volume, name))

    def _work(self, where: Location, schedule: Schedule, due: float, volume: str, name: str) -> Work:
        entry = self._cluster.entry(where, Kind.VOLUME, volume)
        if entry is None:
            raise NotFound(
                f"volume {name!r} ({volume}) does not exist in {where} any more; 'vdisk schedule rm' ends this"
            )
        if entry.image_id is None:
            raise NotReady(f"volume {name!r} in {where} is not complete yet")
        made = self._made(where, schedule, volume)
        self._refuse_behind_another(where, schedule, due, volume, made)
        if due not in made.snaps:
            made = Made({**made.snaps, due: str(uuids.uuid4())})
            self._put_made(where, schedule, volume, made)
        request = CreateSnapshot(
            where,
            schedule.snapshot_name(volume, due),
            made.snaps[due],
            entry.image,
            Layout(features=self._settings.snapshot_features()),
        )
        operation = yield from self._done(request)
        if operation.request.uuid != request.uuid:
            self._put_made(where, schedule, volume, Made({at: uuid for at, uuid in made.snaps.items() if at != due}))
            raise AlreadyExists(f"snapshot {request.name!r} in {where} is there already and not the schedule's")
        yield from self._prune(where, schedule, due, volume)

    def _refuse_behind_another(self, where: Location, schedule: Schedule, due: float, volume: str, made: Made) -> None:
        """Take no further snapshot while an earlier one is under way, so that a hung image does not gather them."""
        for earlier in made.snaps:
            name = schedule.snapshot_name(volume, earlier)
            pending = self._engine.pending_creation(where, Kind.SNAPSHOT, name) if earlier != due else None
            if pending is not None:
                raise NotReady(f"the snapshot of {rfc3339(earlier)} is still under way: operation {pending.id}")

    def _prune(self, where: Location, schedule: Schedule, due: float, volume: str) -> Work:
        """Forget what is not the schedule's any more, and remove what retention does not keep."""
        made = self._made(where, schedule, volume)
        moments = sorted(made.snaps)
        entries = self._cluster.entries(where, Kind.SNAPSHOT, [made.snaps[at] for at in moments])
        own = {
            at
            for at, entry in zip(moments, entries)
            if entry is not None and entry.name == schedule.snapshot_name(volume, at)
        }
        self._forget(where, schedule, volume, set(moments) - own)
        kept = schedule.keep.keeps(own)
        trouble: VdiskError | None = None
        for at in sorted(own - kept):
            self._check_stop()
            try:
                yield from self._done(self._removal(where, schedule.snapshot_name(volume, at), made.snaps[at]))
            except NotFound:
                pass  # somebody removed it first
            except VdiskError as error:
                trouble = error
                continue
            self._forget(where, schedule, volume, {at})
        if trouble is not None:
            raise trouble

    def _removal(self, where: Location, name: str, uuid: str) -> Request:
        keep_for, now = self._settings.keep_for(), time.time()
        return RemoveSnapshot(
            where,
            name,
            uuid,
            keep_until=now + keep_for if keep_for else 0.0,
            deleted_at=now if keep_for else 0.0,
        )

    # -- records -------------------------------------------------------------------------------------------------

    def _made(self, where: Location, schedule: Schedule, volume: str) -> Made:
        key = schedule.made_key(volume)
        try:
            return made_from_text(self._cluster.record(where, Store.SCHEDULES, key))
        except ValueError as error:
            raise Unsupported(f"{key} in {Store.SCHEDULES.value} of {where} can't be read: {error}") from error

    def _forget(self, where: Location, schedule: Schedule, volume: str, moments: set[float]) -> None:
        if moments:
            left = {at: uuid for at, uuid in self._made(where, schedule, volume).snaps.items() if at not in moments}
            self._put_made(where, schedule, volume, Made(left))

    def _put_made(self, where: Location, schedule: Schedule, volume: str, made: Made) -> None:
        if made.snaps:
            self.put(where, schedule, schedule.made_key(volume), made.to_text())
        else:
            self._cluster.fence()
            self._cluster.erase_records(where, Store.SCHEDULES, [schedule.made_key(volume)])

    def put(self, where: Location, schedule: Schedule, key: str, text: str) -> None:
        """Write a record of a schedule; raises :class:`Removed` when there is no such schedule any more."""
        self._check_stop()
        found = self._cluster.record(where, Store.SCHEDULES, schedule.key)
        try:
            if found is None or schedule_from_text(found).id != schedule.id:
                raise Removed
        except ValueError:
            raise Removed from None
        self._cluster.fence()
        self._cluster.put_records(where, Store.SCHEDULES, {key: text})
