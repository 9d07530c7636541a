"""Vitals: what an operator has to know without asking, as health checks and as progress of long work.

Looked at every second is what the engine knows anyway; what has to be read (rbd_support's queue, images near a bound)
is looked at each ``interval``. Each look has a thread of its own: rbd_support may be silent for half a minute, a pool
for ever, and neither must hold up more than what is asked of it. Checks are raised and cleared by what is there now,
so nothing has to be acknowledged.
"""

from __future__ import annotations

import json
import logging
import threading
import time
import uuid as uuids
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from ..engine.engine import Engine
from ..engine.guards import GuardSettings
from ..engine.health import HealthBoard, Severity
from ..engine.operation import Operation, State
from ..engine.ports import Cluster
from ..model.errors import NotFound, VdiskError
from ..model.findings import Trouble
from ..model.observed import Location
from ..model.records import Store
from .checks import Checks

#: Codes of the health checks; what mutes them.
STUCK, TASK_QUEUE = "VDISK_OPERATIONS_STUCK", "VDISK_TASK_QUEUE"
UNREADABLE = "VDISK_INTENTS_UNREADABLE"
DEPTH, SNAPSHOTS = "VDISK_CLONE_DEPTH", "VDISK_SNAPSHOT_COUNT"
#: Seconds for which an operation may be in one step, or be tried again for an error, before it counts as stuck.
_STUCK_SECONDS = 600.0
#: Steps that may take as long as an image is large, or wait for what users do.
_LONG_STEPS = frozenset({"flatten-image", "queue-removal", "await-children"})
#: Seconds that work has to last before it is shown: each event that ends is kept by the mgr for a while.
_SHOW_AFTER = 3.0
#: Deleted images from which reclaiming is shown, and how much further an event has to be to be told anew.
_BACKLOG = 10
_FURTHER = 0.01
_TICK = 1.0


class Events(Protocol):
    """The mgr's progress events. Neither method raises: progress is nothing that work may fail for."""

    def update(self, event: str, message: str, fraction: float) -> None:
        """Begin an event, or say how far it is (0 to 1)."""

    def complete(self, event: str) -> None:
        """End an event; an unknown one is no error."""


@dataclass(frozen=True)
class Work:
    """Long work under way: what it is, for people, and how much is done (0 to 1)."""

    message: str
    fraction: float


class Vitals:
    """``interval`` in seconds, read anew each time. No two looks share what they change."""

    def __init__(
        self,
        cluster: Cluster,
        engine: Engine,
        checks: Checks,
        health: HealthBoard,
        events: Events,
        bounds: GuardSettings,
        interval: Callable[[], float],
        log: logging.Logger,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._engine = engine
        self._checks = checks
        self._health = health
        self._events = events
        self._bounds = bounds
        self._interval = interval
        self._log = log
        self._clock = clock
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._ended.set()
        self._shown: dict[str, Work] = {}
        self._seen: dict[str, float] = {}
        self._reclaim: tuple[str, int] | None = None
        self._unreachable = 0
        self._learnt: dict[tuple[int, str], float] = {}

    def start(self) -> None:
        """Look every second, and closer each interval, from now on."""
        self._ended.clear()
        for name, run in (
            ("vdisk-vitals", self._run),
            ("vdisk-bounds", lambda: self._each_interval(self.look_at_bounds)),
            ("vdisk-task-queue", lambda: self._each_interval(self.look_at_task_queue)),
        ):
            threading.Thread(target=run, name=name, daemon=True).start()

    def stop(self) -> None:
        """Look no more; what is shown as under way goes on elsewhere, or after the next start, and is shown there."""
        self._stop.set()
        self._ended.wait(2 * _TICK)

    def _run(self) -> None:
        try:
            while not self._stop.wait(_TICK):
                self.look()
        finally:
            for event in self._shown:
                self._events.complete(event)
            self._ended.set()

    def _each_interval(self, look: Callable[[], None]) -> None:
        last = -1e9
        while not self._stop.wait(_TICK):
            if time.monotonic() - last >= self._interval():
                last = time.monotonic()
                look()

    def look(self) -> None:
        """Look at what the engine and the checks know; reads nothing."""
        operations = self._engine.unfinished()
        self._tell_stuck(operations)
        self._tell_unreadable()
        work = dict(self._work(operations))
        self._seen = {event: self._seen.get(event, self._clock()) for event in work}
        lasting = {event for event, since in self._seen.items() if self._clock() - since >= _SHOW_AFTER}
        self._show({event: item for event, item in work.items() if event in lasting})

    def look_at_bounds(self) -> None:
        """Look which images are near a bound."""
        try:
            self._learn()
            self._tell_near()
        except VdiskError as error:
            self._log.info("looking at images near a bound failed, trying again: %s", error.message)

    # -- operations ----------------------------------------------------------------------------------------------

    def _tell_stuck(self, operations: list[Operation]) -> None:
        stuck = [line for operation in operations if (line := self._why_stuck(operation))]
        if not stuck:
            self._health.clear(STUCK)
            return
        self._health.set(STUCK, Severity.WARNING, f"{len(stuck)} operation(s) of vdisk are stuck", stuck)

    def _tell_unreadable(self) -> None:
        """Tell of operations that another version began: nobody goes on with them as long as this one runs."""
        kept = [
            f"operation {intent.id} ({intent.kind or 'of unknown kind'} {intent.target}) is kept: {intent.reason}"
            for intent in self._engine.unreadable()
        ]
        self._tell(UNREADABLE, kept, "operation(s) were begun by another version of vdisk, which has to finish them")

    def _why_stuck(self, operation: Operation) -> str:
        """Say why an operation does not get on; empty for one that does, or that waits for what users do."""
        what = f"operation {operation.id} ({operation.request.kind} {operation.target})"
        error = operation.error.message if operation.error is not None else ""
        if operation.stuck:
            return f"{what} stopped: {error}; 'ceph vdisk op retry {operation.id}' runs it again"
        now = self._clock()
        if operation.state is State.WAITING and error and now - (operation.waiting_since or now) > _STUCK_SECONDS:
            return f"{what} is tried again and again since {_STUCK_SECONDS / 60:.0f} minutes or more: {error}"
        hangs = operation.state is State.RUNNING and operation.step not in _LONG_STEPS
        if hangs and now - (operation.step_since or now) > _STUCK_SECONDS:
            return f"{what} is in step {operation.step} since {_STUCK_SECONDS / 60:.0f} minutes or more"
        return ""

    # -- progress ------------------------------------------------------------------------------------------------

    def _work(self, operations: list[Operation]) -> Iterator[tuple[str, Work]]:
        """Yield what is under way and may take long, by the id of its event."""
        backlog = 0
        for operation in operations:
            if operation.state.final:
                continue
            if operation.step == "flatten-image" and operation.state is State.RUNNING:
                # What rbd_support flattens it shows by itself.
                yield operation.id, Work(f"Flattening {operation.target}", operation.progress)
            if operation.request.removes and operation.answered and operation.step != "await-children":
                backlog += 1
        yield from self._reclaiming(backlog)
        for run in self._checks.runs():
            if run.finished_at is None:
                verb = "Repairing" if run.wish.repair else "Checking"
                yield run.id, Work(f"{verb} {run.where}", run.progress.fraction)

    def _reclaiming(self, backlog: int) -> Iterator[tuple[str, Work]]:
        """Yield the reclaiming of deleted images from when there are many until there are none."""
        if self._reclaim is None and backlog >= _BACKLOG:
            self._reclaim = str(uuids.uuid4()), backlog
        if self._reclaim is None:
            return
        event, most = self._reclaim
        self._reclaim = (event, max(most, backlog)) if backlog else None
        if backlog:
            yield event, Work("Reclaiming deleted images", 1.0 - backlog / max(most, backlog))

    def _show(self, work: dict[str, Work]) -> None:
        for event in [event for event in self._shown if event not in work]:
            self._events.complete(event)
            del self._shown[event]
        for event, item in work.items():
            before = self._shown.get(event)
            # Never backwards, and not for each thousandth: every update is a message to the monitors.
            further = before is None or item.fraction >= before.fraction + _FURTHER
            if further:
                self._events.update(event, item.message, item.fraction)
                self._shown[event] = item

    # -- rbd_support ---------------------------------------------------------------------------------------------

    def look_at_task_queue(self) -> None:
        """Ask rbd_support for its tasks; twice in vain is worth a warning, once may be its start.

        Asked whether or not something waits for it: vdisk removes what it does not take, so that a backlog is no sign
        of its silence, and whoever adds tasks by hand, or has volumes flattened later, is as much in need of it.
        """
        try:
            if self._cluster.rbd_pools():
                self._cluster.task_list()
        except VdiskError as error:
            self._unreachable += 1
            if self._unreachable > 1:
                summary = "the task queue of rbd_support does not answer vdisk"
                detail = f"{error.message}; vdisk removes what is deleted now itself, what is to be flattened waits"
                self._health.set(TASK_QUEUE, Severity.WARNING, summary, [detail])
            return
        self._unreachable = 0
        self._health.clear(TASK_QUEUE)

    # -- bounds --------------------------------------------------------------------------------------------------

    def _learn(self) -> None:
        """Take over what the last check of each place found near a bound: a guard knows only what was asked for."""
        for root in self._cluster.rbd_pools():
            try:
                for namespace in ["", *self._cluster.namespaces(root.pool_id, root.pool)]:
                    self._learn_of(Location(root.pool_id, root.pool, namespace))
            except NotFound:
                continue  # the pool was removed meanwhile

    def _learn_of(self, where: Location) -> None:
        last = self._checks.last(where) or {}
        place, finished = (where.pool_id, where.namespace), float(last.get("finished_at") or 0.0)
        if not last.get("found") or self._learnt.get(place) == finished:
            return
        self._learnt[place] = finished
        near = {Trouble.DEPTH_NEAR_LIMIT.value: "depth", Trouble.SNAPSHOTS_NEAR_LIMIT.value: "snapshots"}
        for key, text in self._cluster.survey_records(where, Store.CHECK):
            try:
                found = json.loads(text) if key.startswith("finding.") else {}
                if found.get("class") in near:
                    name = str(found["objects"][0]).rpartition("/")[2]
                    self._engine.guards.look_after(where, str(found["subject"]["key"]), name, near[found["class"]])
            except (ValueError, LookupError, TypeError, AttributeError):
                continue  # of another version: the next check writes it anew

    def _tell_near(self) -> None:
        near = self._engine.guards.near()
        bounds = self._bounds
        deep = [
            f"image {item.where}/{item.name} has {item.number} parents (clone_depth_hard {bounds.depth_hard()})"
            for item in near
            if item.what == "depth"
        ]
        many = [
            f"image {item.where}/{item.name} has {item.number} snapshots (snapshots_hard {bounds.snapshots_hard()})"
            for item in near
            if item.what == "snapshots"
        ]
        self._tell(DEPTH, deep, "image(s) have a chain of clones near its bound")
        self._tell(SNAPSHOTS, many, "image(s) have nearly as many snapshots as are allowed")

    def _tell(self, code: str, lines: list[str], what: str) -> None:
        if lines:
            self._health.set(code, Severity.WARNING, f"{len(lines)} {what}", lines)
        else:
            self._health.clear(code)
