"""The book of operations: those under way, those that ended lately, and those that are stuck.

Not thread-safe: the engine calls it under its own lock.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ..lifecycle.base import Request
from ..model.names import Kind
from .operation import Operation

_KEEP_FINISHED = 1000
_KEEP_FINISHED_SECONDS = 3600.0


class Book:
    """Operations by id. ``clock`` gives seconds since the epoch."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._latest: dict[str, str] = {}
        self._unanswered: set[str] = set()
        self.live: OrderedDict[str, Operation] = OrderedDict()
        """Under way, in the order they came."""
        self.finished: OrderedDict[str, Operation] = OrderedDict()
        """Ended, for a while."""
        self.stuck: dict[str, Operation] = {}
        """Stopped with an error after they had begun, until an operator decides."""

    def open(self, operation: Operation) -> None:
        """Count an operation among the live ones."""
        self.stuck.pop(operation.id, None)
        self.live[operation.id] = operation
        if not operation.answered:
            self._unanswered.add(operation.id)
        operation.lock_keys = tuple(lock.key for lock in operation.request.locks())
        for key in operation.lock_keys:
            self._latest[key] = operation.id

    @property
    def unanswered(self) -> int:
        """How many of the live operations somebody may be waiting for."""
        return len(self._unanswered)

    def answered(self, operation: Operation) -> None:
        """Note that nobody waits for an operation any more."""
        self._unanswered.discard(operation.id)

    def close(self, operation: Operation) -> None:
        """Move an operation that ended to where it belongs; a repeat that had nothing to do is not remembered."""
        self.live.pop(operation.id, None)
        self._unanswered.discard(operation.id)
        for key in operation.lock_keys:
            if self._latest.get(key) == operation.id:
                del self._latest[key]
        if operation.stuck:
            self.stuck[operation.id] = operation
        elif operation.error is not None or operation.recorded:
            self.finished[operation.id] = operation
        self._expire()

    def get(self, op_id: str) -> Operation | None:
        """Return an operation by id."""
        return self.live.get(op_id) or self.finished.get(op_id) or self.stuck.get(op_id)

    def unfinished(self) -> list[Operation]:
        """Return what is stuck or under way."""
        self._expire()
        return [*self.stuck.values(), *self.live.values()]

    def listed(self) -> list[Operation]:
        """Return what is worth showing: requests that were refused before they began are no news."""
        self._expire()
        finished = [operation for operation in self.finished.values() if operation.recorded]
        return [*self.stuck.values(), *finished, *self.live.values()]

    def serving(self, request: Request) -> Operation | None:
        """Return the operation that serves a request too: a live one, or a stuck one that can be taken up again.

        Only the last live one that came for the request's first lock counts: one with another in between, such as a
        create before a delete, is not what the caller means.
        """
        last = self.live.get(self._latest.get(next(iter(request.locks())).key, ""))
        if last is not None and last.abort is None and request.same(last.request):
            return last
        return next((operation for operation in self.stuck.values() if request.same(operation.request)), None)

    def removal(self, target: Kind, matches: Callable[[Request], bool]) -> Operation | None:
        """Return the latest removal that answered and matches."""
        for operation in reversed([*self.finished.values(), *self.live.values()]):
            request = operation.request
            if operation.answered and request.target is target and request.removes and matches(request):
                return operation
        return None

    def creation(self, target: Kind, matches: Callable[[Request], bool]) -> Operation | None:
        """Return the creation that matches and has not answered yet."""
        for operation in self.live.values():
            request = operation.request
            if not operation.answered and request.target is target and request.creates and matches(request):
                return operation
        return None

    def _expire(self) -> None:
        """Forget finished operations that are too many or too old."""
        now = self._clock()
        while self.finished:
            oldest = next(iter(self.finished.values()))
            too_old = (oldest.finished_at or now) + _KEEP_FINISHED_SECONDS < now
            if len(self.finished) <= _KEEP_FINISHED and not too_old:
                return
            self.finished.popitem(last=False)
