"""Carries an operation out: its intent, its plan, its steps one after another, and undoing it when that has to be."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from ..lifecycle.base import Plan, Request
from ..lifecycle.steps import Answer, Step
from ..model.errors import LostRace, NotReady, VdiskError
from .executor import Executor
from .guards import Guards
from .meter import Meter
from .operation import Operation, StepRecord
from .ports import Cluster
from .waiting import Waiting

#: Names of the failpoints around an intent's writing and erasing.
WRITE_INTENT, ERASE_INTENT = "write-intent", "erase-intent"
_REPLANS = 5


class Stopped(Exception):
    """The module is being stopped, and the intent carries the operation over; or it was given up meanwhile."""


class Answered(Exception):
    """The operation has answered; ``steps`` are left, which nobody waits for."""

    def __init__(self, steps: tuple[Step, ...]) -> None:
        super().__init__()
        self.steps = steps


class TakenBack(Exception):
    """An operator cancelled the operation; what it did is to be undone."""


class Runner:
    """Runs operations to their ends; ``changed`` is the engine's lock, under which their fields change.

    ``answer`` is called with the lock held when an operation's answer has become true. All methods are called without
    it, on a worker's thread, and raise errors of the model, :class:`Waiting`, or one of the exceptions above.
    """

    def __init__(
        self,
        cluster: Cluster,
        executor: Executor,
        guards: Guards,
        meter: Meter,
        changed: threading.Condition,
        clock: Callable[[], float],
        log: logging.Logger,
        *,
        answer: Callable[[Operation], None],
        stopping: Callable[[], bool],
    ) -> None:
        self._cluster = cluster
        self._executor = executor
        self._guards = guards
        self._meter = meter
        self._changed = changed
        self._clock = clock
        self._log = log
        self._answer = answer
        self._stopping = stopping

    def accept(self, operation: Operation) -> None:
        """Make an operation durable before a worker is free for it, so that ``--wait 0`` can answer."""
        with self._changed:
            if operation.begun or operation.durable or operation.state.final or self._stopping():
                return
            operation.accepting = True
        try:
            self._persist(operation)
        except VdiskError as error:
            self._log.warning("operation %s: writing its intent failed: %s", operation.id, error.message)
        finally:
            with self._changed:
                operation.accepting = False
                self._changed.notify_all()

    def run(self, operation: Operation) -> VdiskError | None:
        """Observe, plan, and carry out; the same for a new operation and for one that a crash cut anywhere.

        Returns the error that the operation ended with, None when it did what it was asked for; its intent is erased.
        """
        with self._changed:
            operation.begun = True
            self._changed.wait_for(lambda: not operation.accepting)
        for _ in range(_REPLANS):
            if operation.abort is not None:
                if operation.durable:
                    undo = operation.request.undo(self._cluster)
                    with self._changed:
                        operation.request = undo.request
                    self._persist(operation)
                    self._carry_out(operation, undo.steps, undoing=True)
                return self._over(operation, None if operation.answered else operation.abort)
            if operation.answered and self._gone_since(operation.request):
                return self._over(operation)
            plan = operation.request.plan(self._cluster)
            self._admitted(operation, plan)
            operation.size = plan.frees
            if plan.request != operation.request or not operation.durable:
                with self._changed:
                    operation.request = plan.request
                if any(not isinstance(step, Answer) for step in plan.steps):
                    self._persist(operation)
            try:
                self._carry_out(operation, plan.steps)
            except LostRace as lost:
                self._log.info("operation %s: %s; planning again", operation.id, lost.message)
                continue
            return self._over(operation)
        raise NotReady(f"{operation.target} is being changed by somebody else all the time")

    def run_rest(self, operation: Operation, steps: tuple[Step, ...]) -> VdiskError | None:
        """Carry out what :class:`Answered` left of a plan, and erase the intent."""
        self._carry_out(operation, steps)
        return self._over(operation)

    def _admitted(self, operation: Operation, plan: Plan) -> None:
        """Let the guards look at a plan. What they have wait is durable, so that nobody has to ask for it again."""
        try:
            self._guards.admit(plan)
        except Waiting:
            if not operation.durable:
                with self._changed:
                    operation.request = plan.request
                self._persist(operation)
            raise

    def _gone_since(self, request: Request) -> bool:
        """Tell whether somebody removed what a creation had answered with; it is not made a second time."""
        return request.creates and self._cluster.lookup(request.where, request.target, request.name) != request.uuid

    def _persist(self, operation: Operation) -> None:
        with self._executor.failpoints(WRITE_INTENT):
            self._cluster.fence()
            self._cluster.put_intent(operation.request.where, operation.id, operation.to_intent())
        with self._changed:
            operation.durable = operation.recorded = True
            self._changed.notify_all()

    def _over(self, operation: Operation, error: VdiskError | None = None) -> VdiskError | None:
        """Erase the intent of an operation that has come to its end; returns ``error``."""
        if operation.durable:
            with self._executor.failpoints(ERASE_INTENT):
                self._cluster.fence()
                self._cluster.erase_intent(operation.request.where, operation.id)
        return error

    def _carry_out(self, operation: Operation, steps: tuple[Step, ...], undoing: bool = False) -> None:
        try:
            self._carry_out_each(operation, steps, undoing)
        finally:
            self._executor.let_go(steps)

    def _carry_out_each(self, operation: Operation, steps: tuple[Step, ...], undoing: bool) -> None:
        with self._changed:
            operation.steps_done, operation.steps_total = 0, len(steps)
        for number, step in enumerate(steps):
            answering = isinstance(step, Answer) and not operation.answered
            with self._changed:
                if self._stopping() or operation.state.final:
                    raise Stopped
                if operation.abort is not None and not undoing:
                    raise TakenBack
                operation.step, operation.step_since = step.name, self._clock()
            started = time.monotonic()
            self._executor.run(step)
            seconds = time.monotonic() - started
            if not isinstance(step, Answer):
                self._meter.step(operation.request.kind, step.name, seconds)
            if isinstance(step, Answer) and step is not steps[-1] and operation.request.creates:
                # What is answered and then removed by somebody must not be made again after a crash.
                with self._changed:
                    operation.answered = True
                self._persist(operation)
            with self._changed:
                if not (isinstance(step, Answer) and any(record.name == step.name for record in operation.history)):
                    operation.history.append(StepRecord(step.name, seconds))
                operation.steps_done += 1
                operation.progress = max(operation.progress, operation.steps_done / operation.steps_total)
                if isinstance(step, Answer):
                    self._answer(operation)
            if answering and number + 1 < len(steps):
                raise Answered(steps[number + 1 :])
