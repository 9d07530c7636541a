"""The engine: takes requests, keeps their order, runs them on workers, and finishes what was begun before a crash."""

from __future__ import annotations

import logging
import threading
import time
import uuid as uuids
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..lifecycle.base import Request
from ..lifecycle.flatten import FlattenChain
from ..lifecycle.steps import Step
from ..lifecycle.volume_flatten import FlattenVolume
from ..model.errors import (
    Cancelled,
    Internal,
    InvalidArgument,
    NoSpace,
    NotFound,
    NotReady,
    Throttled,
    VdiskError,
)
from ..model.names import Kind
from ..model.observed import Location
from .awaited import Awaited
from .book import Book
from .executor import Executor
from .guards import Guards, GuardSettings
from .locks import LockTable
from .meter import DONE, STUCK, UNCHANGED, Meter
from .operation import Operation, State
from .patience import GiveWay, never, patient
from .ports import Cluster
from .reaper import Reaper, ReaperSettings
from .recovery import Recovery
from .restraint import Restraint
from .runner import Answered, Runner, Stopped, TakenBack
from .unreadable import UnreadableIntent
from .waiting import Key, Waiting
from .workers import Timer, Workers

_BACKOFF = (0.1, 0.3, 1.0, 2.0, 5.0, 10.0, 30.0)
#: How many of these there are for what somebody waits for.
_IMPATIENT = 5
#: What waits for something that goes without our doing is looked at ever less often: there may be thousands of such.
_WAITING_BACKOFF = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 300.0)
#: Times ``queue_limit`` that may be left to do in the background, which is what memory is bounded by.
_BACKGROUND_SHARE = 10
#: Threads that bring removals as far as rbd_support where ``reaper_threads`` leaves those to it.
_PREPARING = 4
#: Seconds that a command with ``--wait 0`` gives its intent to become durable.
ACCEPT_SECONDS = 2.0
#: Seconds in which an operation that a worker took at once writes its intent itself. The command thread waits so long.
_ACCEPT_SOON = 0.005
#: Seconds for which a step runs before it is asked whether its pool is still there.
_HANGS_SECONDS = 10.0
#: Threads that write the intents of operations that no worker is free for yet.
_ACCEPTORS = 8


@dataclass(frozen=True)
class Settings:
    """What the engine may do, read anew each time so that options take effect at once."""

    workers: Callable[[], int]
    queue_limit: Callable[[], int]
    reaper: ReaperSettings = field(default_factory=ReaperSettings)
    guards: GuardSettings = field(default_factory=GuardSettings)


class Engine:
    """Runs operations. All public methods may be called from any thread; none of them waits for the cluster."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        log: logging.Logger,
        *,
        failpoint: Callable[[str, str], None] | None = None,
        clock: Callable[[], float] = time.time,
        new_id: Callable[[], str] = lambda: str(uuids.uuid4()),
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._log = log
        self._clock = clock
        self._new_id = new_id
        self.meter = Meter()
        self.reaper = Reaper(cluster, settings.reaper, log, self._image_gone)
        self.guards = Guards(cluster, settings.guards, self.submit)
        self._executor = Executor(cluster, cluster, self.reaper.remove, failpoint)
        self._workers = Workers("vdisk-worker", settings.workers, log)
        # What nobody waits for has threads of its own, so that a thousand seals or removals hold up no request.
        self._background = Workers("vdisk-background", settings.workers, log)
        self._reapers = Workers("vdisk-reaper", self._reaper_threads, log)
        self._acceptors = Workers("vdisk-accept", lambda: _ACCEPTORS, log)
        self._timer = Timer("vdisk-timer", log)
        self._changed = threading.Condition()
        self._restraint = Restraint(self._changed, self._timer)
        self._locks = LockTable()
        self._book = Book(clock)
        self._awaited = Awaited()
        self._looking = False
        self._watching = False
        self._runner = Runner(
            cluster,
            self._executor,
            self.guards,
            self.meter,
            self._changed,
            clock,
            log,
            answer=self._answer,
            stopping=lambda: self._stopping,
        )
        self._recovery = Recovery(cluster, self._workers, self._timer, self._changed, self._go_on, log)
        self._stopping = False

    # -- taking requests -----------------------------------------------------------------------------------------

    def submit(self, request: Request) -> Operation:
        """Take a request, or join the operation that does the same already; ``Throttled`` when too much waits."""
        with self._changed:
            if self._stopping:
                raise NotReady("vdisk is stopping on this mgr; try again")
            serving = self._book.serving(request)
            if serving is not None:
                if serving.stuck:
                    self._revive(serving)
                return serving
            limit = self._settings.queue_limit()
            if self._book.unanswered >= limit or len(self._book.live) >= limit * _BACKGROUND_SHARE:
                raise Throttled(f"{len(self._book.live)} operations are queued already; try again later")
            self._restraint.asked(self._workers, self._settings.workers(), self._reapers)
            operation = Operation(self._new_id(), request, self._clock())
            self._book.open(operation)
            if not self._recovery.hold_back(operation):
                self._admit(operation)
            return operation

    def wait(self, operation: Operation, seconds: float, give_way: GiveWay = never) -> bool:
        """Wait until the operation answered or ended; with 0 only until its intent is durable.

        Returns whether it answered or ended; ``give_way`` may cut the wait short. An operation that could not be
        accepted raises ``NotReady``.
        """

        def settled() -> bool:
            return operation.answered or operation.state.final

        def wait_for(condition: Callable[[], bool], timeout: float) -> bool:
            with self._changed:
                return self._changed.wait_for(condition, timeout)

        if seconds > 0:
            return patient(partial(wait_for, settled), seconds, give_way)

        def accepted() -> bool:
            return settled() or operation.durable

        busy = self._workers.load()[0] > 0
        if wait_for(accepted, 0 if busy else _ACCEPT_SOON):
            return settled()
        self._acceptors.submit(operation.request.where.pool_id, partial(self._runner.accept, operation))
        if not wait_for(accepted, ACCEPT_SECONDS):
            raise NotReady(
                f"operation {operation.id} is queued but not durable yet, because pool "
                f"{operation.request.where.pool!r} does not answer or others come first; repeat the command"
            )
        return settled()

    def wait_any(self, operations: Iterable[Operation], seconds: float) -> None:
        """Wait at most ``seconds`` until one of several operations answered or ended."""
        waited = list(operations)
        with self._changed:
            self._changed.wait_for(lambda: any(op.answered or op.state.final for op in waited), seconds)

    def rest(self, operation: Operation, seconds: float, give_way: GiveWay = never) -> None:
        """Wait at most ``seconds`` until an operation ended, or waits for something else to pass."""

        def at_rest(timeout: float) -> bool:
            with self._changed:
                return self._changed.wait_for(
                    lambda: operation.state.final or operation.state is State.WAITING, timeout
                )

        patient(at_rest, seconds, give_way)

    # -- looking -------------------------------------------------------------------------------------------------

    def operations(self) -> list[Operation]:
        """Return operations under way and lately finished, oldest first; requests that were refused are no news."""
        with self._changed:
            return self._book.listed()

    def unfinished(self) -> list[Operation]:
        """Return operations that are stuck or under way."""
        with self._changed:
            return self._book.unfinished()

    def lookup(self, op_id: str) -> Operation | None:
        """Return one operation, None when it does not exist or ended long ago."""
        with self._changed:
            return self._book.get(op_id)

    def operation(self, op_id: str) -> Operation:
        """Return one operation; raises ``NotFound``."""
        found = self.lookup(op_id)
        if found is None:
            raise NotFound(f"operation {op_id!r} does not exist or ended more than an hour ago")
        return found

    def removal_of(self, where: Location, target: Kind, name: str) -> Operation | None:
        """Return the latest removal of that name that answered, so that repeating it answers the same."""
        with self._changed:
            return self._book.removal(target, lambda r: r.where == where and name in (r.name, r.image))

    def removal_of_uuid(self, pool_id: int, target: Kind, uuid: str) -> Operation | None:
        """Return the removal of that uuid that answered, so that repeating it answers the same."""
        with self._changed:
            return self._book.removal(target, lambda r: r.where.pool_id == pool_id and r.uuid == uuid)

    def pending_creation(self, where: Location, target: Kind, name: str) -> Operation | None:
        """Return the operation that is creating that name and has not answered yet."""
        with self._changed:
            return self._book.creation(target, lambda r: r.where == where and name in (r.name, r.image))

    def pending_creation_of_uuid(self, pool_id: int, target: Kind, uuid: str) -> Operation | None:
        """Return the operation that is creating that uuid and has not answered yet."""
        with self._changed:
            return self._book.creation(target, lambda r: r.where.pool_id == pool_id and r.uuid == uuid)

    def unreadable(self) -> list[UnreadableIntent]:
        """Return the intents that this version could not read."""
        with self._changed:
            return list(self._recovery.unreadable.values())

    def cancel(self, op_id: str, dry_run: bool = False) -> Operation:
        """Cancel an operation: what it did is undone. Raises ``InvalidArgument`` where it can only go forward.

        Cancelling what was cancelled already changes nothing. With ``dry_run`` only those errors are raised.
        """
        error = Cancelled(f"operation {op_id} was cancelled by an operator")
        with self._changed:
            operation = self.operation(op_id)
            if operation.state.final:
                if isinstance(operation.error, Cancelled):
                    return operation
                raise InvalidArgument(f"operation {op_id} has ended: there is nothing to cancel")
            if operation.answered:
                raise InvalidArgument(f"operation {op_id} has answered already; only its background part is left")
            if operation.durable and not operation.request.creates:
                raise InvalidArgument(f"operation {op_id} ({operation.request.kind}) has begun and only goes forward")
            if dry_run:
                return operation
            operation.abort = operation.abort or error
            if operation.state is State.QUEUED and not operation.durable and not operation.accepting:
                operation.error, operation.state = error, State.FAILED
                self._end(operation)
            elif operation.state is State.QUEUED or operation.state is State.WAITING:
                self._dispatch(operation)
            self._changed.notify_all()
        self._log.info("operation %s: cancelled", op_id)
        return operation

    def retry(self, op_id: str, dry_run: bool = False) -> Operation:
        """Run an operation again that stopped with an error after it had begun, or that waits for its next try.

        Raises ``InvalidArgument`` for any other; with ``dry_run`` it does nothing else.
        """
        with self._changed:
            operation = self.operation(op_id)
            if operation.state is not State.WAITING and not operation.stuck:
                raise InvalidArgument(f"operation {op_id} is {operation.state.value}: there is nothing to retry")
            if dry_run:
                return operation
            if operation.stuck:
                self._revive(operation)
            else:
                self._dispatch(operation)
        self._log.info("operation %s: retried", op_id)
        return operation

    def _revive(self, operation: Operation) -> None:
        """Queue a stuck operation again. Caller holds the lock."""
        operation.state, operation.abort, operation.error = State.QUEUED, None, None
        operation.attempts, operation.finished_at = 0, None
        self._book.open(operation)
        self._admit(operation)

    def figures(self) -> dict[str, Any]:
        """Return counts for ``vdisk status``."""
        with self._changed:
            states = [operation.state for operation in self._book.live.values()]
            removals = [op for op in self._book.live.values() if op.request.removes and op.answered]
            queued, running = self._workers.load()
            return {
                **{state.value: states.count(state) for state in State if not state.final},
                "stuck": len(self._book.stuck),
                "recovering": self._recovery.outstanding,
                "unreadable_intents": len(self._recovery.unreadable),
                "flattening": sum(
                    isinstance(op.request, (FlattenChain, FlattenVolume)) for op in self._book.live.values()
                ),
                "workers_busy": running,
                "workers_queued": queued,
                "background_busy": self._background.load()[1],
                "background_queued": self._background.load()[0],
                "reaper": {
                    "backlog": len(removals),
                    "waiting": sum(op.state is State.WAITING for op in removals),
                    "backlog_bytes": sum(op.size for op in removals),
                    **self.reaper.figures(),
                },
            }

    # -- starting and stopping -----------------------------------------------------------------------------------

    def recover(self) -> None:
        """Load the intents of every RBD pool and namespace in the background and go on with them."""
        self._recovery.start()

    def stop(self, timeout: float = 3.0) -> None:
        """Stop between steps. What is under way stays in its intents and goes on at the next start."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._timer.stop()
        self.reaper.stop()
        self._acceptors.stop(0)
        ends = time.monotonic() + timeout
        pools = (self._workers, self._background, self._reapers)
        stopped = [pool.stop(max(0.0, ends - time.monotonic())) for pool in pools]
        if not all(stopped):
            self._log.warning("some operations are still inside a call to the cluster; they are left to their intents")

    def _go_on(self, resumed: list[Operation | UnreadableIntent], arrived: list[Operation]) -> None:
        """Queue what an earlier life of the module had begun, and behind it what came since. Caller holds the lock."""
        for operation in resumed:
            if isinstance(operation, UnreadableIntent):
                # It holds what it needs until a version comes that can read it.
                self._locks.enqueue(operation.id, operation.locks)
            elif self._book.get(operation.id) is None:
                self._book.open(operation)
                self._admit(operation)
                self.meter.resumed()
                self._log.info("operation %s: resuming %s %s", operation.id, operation.request.kind, operation.target)
        for operation in arrived:
            # One that was cancelled meanwhile has ended, and would never give back the locks that it queued for now.
            if not operation.state.final:
                self._admit(operation)

    # -- running -------------------------------------------------------------------------------------------------

    def _admit(self, operation: Operation) -> None:
        """Queue an operation for its locks and start it when nothing is before it. Caller holds the lock."""
        self._locks.enqueue(operation.id, operation.request.locks())
        self._consider(operation)

    def _consider(self, operation: Operation) -> None:
        """Start an operation if nothing is before it. Caller holds the lock."""
        if operation.state is not State.QUEUED or operation.attempts:
            return
        blockers = self._locks.blockers(operation.id)
        others = {intent.id for intent in self._recovery.unreadable.values()} if blockers else set()
        operation.waiting_for = [
            f"operation {op_id}" + (", which another version of vdisk began" if op_id in others else "")
            for op_id in blockers
        ]
        if blockers:
            operation.waiting_since = operation.waiting_since or self._clock()
        else:
            self._dispatch(operation)

    def _dispatch(self, operation: Operation) -> None:
        """Hand an operation to the workers. Caller holds the lock."""
        operation.state = State.RUNNING
        operation.attempts += 1
        operation.waiting_since = None
        self._watch_soon()
        pool = self._background_of(operation) if operation.answered else self._workers
        pool.submit(operation.request.where.pool_id, partial(self._run, operation))

    def _reaper_threads(self) -> int:
        """Return how many threads may reclaim space just now."""
        return self._restraint.limit(self._settings.reaper.threads() or _PREPARING, self._reapers.load()[0])

    def _background_of(self, operation: Operation) -> Workers:
        return self._reapers if operation.request.removes else self._background

    def _run(self, operation: Operation, rest: tuple[Step, ...] = ()) -> None:
        """Carry an operation out, from its plan, or only the ``rest`` of the steps."""
        try:
            error = self._runner.run_rest(operation, rest) if rest else self._runner.run(operation)
            self._finish(operation, error)
        except Stopped:
            pass
        except Answered as later:
            where = operation.request.where
            self._background_of(operation).submit(where.pool_id, partial(self._run, operation, later.steps))
        except TakenBack:
            with self._changed:
                self._dispatch(operation)
        except Waiting as waiting:
            self._park(operation, waiting)
        except VdiskError as error:
            self._failed(operation, error)
        except Exception:
            self._log.exception("operation %s (%s %s)", operation.id, operation.request.kind, operation.target)
            self._failed(operation, Internal(f"operation {operation.id} met an unexpected error; see the mgr log"))

    def _answer(self, operation: Operation) -> None:
        """Let the command answer and give back the locks that are held no longer. Caller holds the lock."""
        operation.answered = True
        self._book.answered(operation)
        if not operation.counted:
            operation.counted = True
            self.meter.answered(operation.request.kind, self._clock() - operation.started_at)
        operation.error = None
        self._release(operation, everything=False)
        self._changed.notify_all()

    def _release(self, operation: Operation, everything: bool) -> None:
        for op_id in self._locks.release(operation.id, everything):
            other = self._book.live.get(op_id)
            if other is not None:
                self._consider(other)

    def _finish(self, operation: Operation, error: VdiskError | None) -> None:
        """End an operation that ran to its end: give back its locks, wake what waited for it, remember it a while."""
        with self._changed:
            if operation.state.final:  # given up
                return
            operation.durable = False
            operation.error = error
            operation.answered = operation.answered or error is None
            operation.state = State.DONE if error is None else State.FAILED  # last: who sees it sees the others, too
            request = operation.request
            if isinstance(request, FlattenChain) and error is None:
                self._wake(Key(request.where.pool_id, request.where.namespace, request.image_id))
            for image_id in request.goes:
                self._wake(Key(request.where.pool_id, request.where.namespace, image_id))
            self._end(operation)

    def _end(self, operation: Operation) -> None:
        """Move an operation to the finished ones. Caller holds the lock."""
        request = operation.request
        if isinstance(request, FlattenChain):
            self.guards.over(Key(request.where.pool_id, request.where.namespace, request.image_id))
        operation.step = operation.step_since = None
        self._awaited.wait_for(operation, frozenset())
        operation.waiting_for = []
        operation.waiting_since = None
        operation.finished_at = self._clock()
        self.meter.ended(operation.request.kind, _outcome(operation))
        self._book.close(operation)
        self._release(operation, everything=True)
        self._changed.notify_all()

    def _failed(self, operation: Operation, error: VdiskError) -> None:
        """Try again what can pass; undo what can't; keep what was answered already for the operator to see."""
        if isinstance(error, NotFound) and self._pool_gone(operation.request.where):
            # Its intent went with the pool, and so did everything that it could undo.
            with self._changed:
                operation.durable = False
        with self._changed:
            if operation.state.final:  # given up
                return
            operation.error = error
            undoing = operation.abort is not None
            passing = error.retryable and (undoing or operation.answered or not isinstance(error, NoSpace))
            if passing:
                self._retry_later(operation, error)
                return
            if operation.durable and not operation.answered and not undoing:
                operation.abort = error
        self._log.warning(
            "operation %s: %s %s failed: %s", operation.id, operation.request.kind, operation.target, error
        )
        if not operation.durable:
            with self._changed:
                operation.state = State.FAILED
                self._end(operation)
        elif operation.abort is error:
            with self._changed:
                self._dispatch(operation)
        else:
            # Its intent stays: what was promised is not finished, and an operator has to see it.
            with self._changed:
                operation.state = State.FAILED
                self._end(operation)

    def _pool_gone(self, where: Location) -> bool:
        """Tell whether a pool does not exist any more; when in doubt it does.

        A namespace that was removed is no reason to stop: RADOS itself knows no namespaces, so what an operation left
        there can still be undone, and would come back with the next namespace of that name if it were not.
        """
        try:
            return self._cluster.pool_name(where.pool_id) is None
        except VdiskError:
            return False

    def _watch_soon(self) -> None:
        """Have somebody look after a while whether what runs hangs. Caller holds the lock."""
        if not self._watching:
            self._watching = True
            self._timer.after(_HANGS_SECONDS, partial(self._workers.submit, "pools", self._watch))

    def _watch(self) -> None:
        """Give up what hangs in a pool that was removed.

        Who waits in librbd for an image's lock, while its pool goes, waits for ever: librbd takes "not found" from the
        owner for an owner that died, and asks again each second (ImageWatcher::handle_request_lock). Nothing ends such
        a call, so its thread is left to it, and others take its place.
        """
        now = self._clock()
        with self._changed:
            self._watching = False
            running = [op for op in self._book.live.values() if op.state is State.RUNNING]
            hanging = [op for op in running if now - (op.step_since or op.started_at) >= _HANGS_SECONDS]
            if running:
                self._watch_soon()
        for pool_id, where in {op.request.where.pool_id: op.request.where for op in hanging}.items():
            if not self._pool_gone(where):
                continue
            with self._changed:
                for operation in hanging:
                    if operation.request.where.pool_id == pool_id and operation.state is State.RUNNING:
                        self._give_up(operation)
            for workers in (self._workers, self._background, self._reapers):
                workers.give_up(pool_id)

    def _give_up(self, operation: Operation) -> None:
        """End an operation whose thread hangs in a pool that is gone, as is its intent. Caller holds the lock."""
        self._log.warning(
            "operation %s: %s %s hangs in a pool that was removed (step %s); it is given up",
            operation.id, operation.request.kind, operation.target, operation.step,
        )  # fmt: skip
        operation.durable = False
        operation.error = NotFound(f"pool {operation.request.where.pool!r} was removed")
        operation.state = State.FAILED
        self._end(operation)

    def _retry_later(self, operation: Operation, error: VdiskError) -> None:
        """Queue an operation again after a while. Caller holds the lock."""
        delays = _BACKOFF if operation.answered else _BACKOFF[:_IMPATIENT]
        delay = delays[min(operation.attempts - 1, len(delays) - 1)]
        self._log.info(
            "operation %s: %s; trying again in %.1f s (step %s)", operation.id, error.message, delay, operation.step
        )
        operation.state = State.WAITING
        operation.waiting_for = [error.message]
        operation.waiting_since = operation.waiting_since or self._clock()
        self._changed.notify_all()
        self._timer.after(delay, partial(self._resume, operation, operation.attempts))

    def _park(self, operation: Operation, waiting: Waiting) -> None:
        """Set an operation aside until what it waits for is gone."""
        with self._changed:
            if operation.state.final:  # given up
                return
            if operation.waiting_for != waiting.waiting_for:
                self._log.info("operation %s: waiting for %s", operation.id, waiting)
                operation.attempts = 1
            operation.state = State.WAITING
            operation.waiting_for = waiting.waiting_for
            if operation.steps_total:
                share = (operation.steps_done + waiting.done) / operation.steps_total
                operation.progress = max(operation.progress, share)
            operation.waiting_since = operation.waiting_since or self._clock()
            self._awaited.wait_for(operation, waiting.keys)
            self._changed.notify_all()
            delay = min(waiting.most, _WAITING_BACKOFF[min(operation.attempts - 1, len(_WAITING_BACKOFF) - 1)])
            self._timer.after(delay, partial(self._resume, operation, operation.attempts))
            self._look_soon()

    def _wake(self, gone: Key) -> None:
        """Go on with what waited for an image, and for nothing else any more. Caller holds the lock."""
        for op_id in self._awaited.gone(gone):
            operation = self._book.live.get(op_id)
            if operation is not None:
                operation.awaits -= {gone}
                if not operation.awaits and operation.state is State.WAITING and not self._stopping:
                    operation.attempts = 0
                    self._dispatch(operation)

    def _image_gone(self, key: Key) -> None:
        """Take the reaper's word that rbd_support has removed an image, or that vdisk has to."""
        with self._changed:
            self._wake(key)

    def _look_soon(self) -> None:
        """Have the reaper look soon after what rbd_support was given. Caller holds the lock."""
        after = self.reaper.look_after
        if after is not None and not self._looking:
            self._looking = True
            self._timer.after(after, partial(self._workers.submit, "rbd_support", self._look))

    def _look(self) -> None:
        try:
            self.reaper.look()
        except VdiskError as error:
            self._log.info("looking at the tasks of rbd_support failed: %s", error.message)
        finally:
            with self._changed:
                self._looking = False
                self._look_soon()

    def _resume(self, operation: Operation, attempt: int) -> None:
        """Try again, unless somebody else had it tried meanwhile."""
        with self._changed:
            if operation.state is State.WAITING and operation.attempts == attempt and not self._stopping:
                since = operation.waiting_since
                self._dispatch(operation)
                operation.waiting_since = since


def _outcome(operation: Operation) -> str:
    """Return how an operation ended, for counting."""
    if operation.stuck:
        return STUCK
    if operation.error is not None:
        return operation.error.code
    return DONE if operation.recorded else UNCHANGED
