"""Recovery: the intents of each pool and namespace are loaded once, before anything new is done there."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from functools import partial

from ..model.errors import NotFound, VdiskError
from ..model.observed import Location
from .operation import Operation, operation_from_intent
from .ports import Cluster
from .unreadable import UnreadableIntent, unreadable_intent
from .workers import Timer, Workers

#: Seconds before the next try, the last one repeated.
_BACKOFF = (0.1, 0.3, 1.0, 2.0, 5.0, 10.0, 30.0)


class Recovery:
    """Loads intents and holds back what comes for a location whose intents are not loaded yet.

    ``changed`` is the engine's lock; ``go_on`` is called under it with (operations from intents, and intents that can't
    be read, in the order in which they were begun; operations that were held back). One pool that hangs or fails holds
    up no other.
    """

    def __init__(
        self,
        cluster: Cluster,
        workers: Workers,
        timer: Timer,
        changed: threading.Condition,
        go_on: Callable[[list[Operation | UnreadableIntent], list[Operation]], None],
        log: logging.Logger,
    ) -> None:
        self._cluster = cluster
        self._workers = workers
        self._timer = timer
        self._changed = changed
        self._go_on = go_on
        self._log = log
        self._held_back: dict[tuple[int, str], list[Operation]] = {}
        self._unlisted: set[int | None] = {None}
        """Ids of the pools whose namespaces are not known yet; None while the pools themselves are not.

        That is so before the start, too: commands are answered already, and who asks must not hear that all is read.
        """
        self.loaded: set[tuple[int, str]] = set()
        """(pool id, namespace) of the locations whose intents were loaded."""
        self.unreadable: dict[tuple[Location, str], UnreadableIntent] = {}

    @property
    def outstanding(self) -> int:
        """How many lists of pools and namespaces, and intents of such, are still to be read. Caller holds the lock."""
        return len(self._unlisted) + len(self._held_back)

    def start(self) -> None:
        """Load the intents of every RBD pool and namespace in the background."""
        with self._changed:
            self._unlisted.add(None)
        self._workers.submit("recovery", self._list_pools)

    def hold_back(self, operation: Operation) -> bool:
        """Hold an operation back if its location is not loaded yet. Caller holds the lock."""
        where = operation.request.where
        if (where.pool_id, where.namespace) in self.loaded:
            return False
        operation.waiting_for = [f"the intents of {where} to be read"]
        operation.waiting_since = operation.started_at
        self._expect(where).append(operation)
        return True

    def _list_pools(self) -> None:
        try:
            roots = list(self._cluster.rbd_pools())
        except VdiskError as error:
            self._log.warning("reading the list of pools failed, trying again: %s", error.message)
            self._timer.after(_BACKOFF[2], self.start)
            return
        with self._changed:
            self._unlisted.discard(None)
            self._unlisted.update(root.pool_id for root in roots)
        for root in roots:
            self._workers.submit(root.pool_id, partial(self._list_namespaces, root, 0))

    def _list_namespaces(self, root: Location, attempt: int) -> None:
        try:
            namespaces = ["", *self._cluster.namespaces(root.pool_id, root.pool)]
        except NotFound:
            namespaces = []  # the pool was removed meanwhile
        except VdiskError as error:
            self._log.warning("reading the namespaces of %s failed, trying again: %s", root, error.message)
            self._later(attempt, root, partial(self._list_namespaces, root, attempt + 1))
            return
        with self._changed:
            self._unlisted.discard(root.pool_id)
            for namespace in namespaces:
                if (root.pool_id, namespace) not in self.loaded:
                    self._expect(Location(root.pool_id, root.pool, namespace))

    def _expect(self, where: Location) -> list[Operation]:
        """Return what is held back for a location, beginning to load it the first time. Caller holds the lock."""
        key = (where.pool_id, where.namespace)
        if key not in self._held_back:
            self._held_back[key] = []
            self._workers.submit(where.pool_id, partial(self._load, where, 0))
        return self._held_back[key]

    def _load(self, where: Location, attempt: int) -> None:
        try:
            intents = self._cluster.load_intents(where)
        except NotFound:
            intents = {}  # the pool was removed meanwhile: nothing there to go on with
        except VdiskError as error:
            self._log.warning("reading the intents of %s failed, trying again: %s", where, error.message)
            self._later(attempt, where, partial(self._load, where, attempt + 1))
            return
        with self._changed:
            key = (where.pool_id, where.namespace)
            self.loaded.add(key)
            found = [self._read(where, op_id, text) for op_id, text in intents.items()]
            found.sort(key=lambda operation: operation.started_at)
            self._go_on(found, self._held_back.pop(key, []))

    def _read(self, where: Location, op_id: str, text: str) -> Operation | UnreadableIntent:
        """Return what an intent holds. Caller holds the lock."""
        try:
            return operation_from_intent(op_id, text)
        except ValueError as error:
            found = self.unreadable[where, op_id] = unreadable_intent(where, op_id, text, str(error))
            self._log.error("intent %s in %s is kept but can't be read: %s", op_id, where, error)
            return found

    def _later(self, attempt: int, where: Location, job: Callable[[], None]) -> None:
        delay = _BACKOFF[min(attempt, len(_BACKOFF) - 1)]
        self._timer.after(delay, partial(self._workers.submit, where.pool_id, job))
