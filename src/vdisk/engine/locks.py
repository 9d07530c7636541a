"""Order: operations that need the same name or image run one after another, in the order they came."""

from __future__ import annotations

from collections.abc import Iterable

from ..lifecycle.base import Lock


class LockTable:
    """Queues of operations per lock key. An operation may run when it is compatible with all that came before it.

    Not thread-safe: the engine calls it under its own lock.
    """

    def __init__(self) -> None:
        self._queues: dict[str, dict[str, bool]] = {}
        self._held: dict[str, dict[str, Lock]] = {}

    def enqueue(self, op_id: str, locks: Iterable[Lock]) -> None:
        """Put an operation behind all that want the same things; a key named twice counts once, exclusively."""
        held = self._held.setdefault(op_id, {})
        for lock in locks:
            before = held.get(lock.key)
            if before is not None:
                lock = Lock(
                    lock.key,
                    lock.shared and before.shared,
                    lock.to_the_end or before.to_the_end,
                    min(filter(None, (lock.most, before.most)), default=0),
                )
            held[lock.key] = lock
            self._queues.setdefault(lock.key, {})[op_id] = lock.shared

    def blockers(self, op_id: str) -> list[str]:
        """Return the operations that this one has to wait for."""
        found: dict[str, None] = {}
        for key, lock in self._held.get(op_id, {}).items():
            beside: list[str] = []
            for other, shared in self._queues[key].items():
                if other == op_id:
                    break
                if lock.shared and shared:
                    beside.append(other)
                else:
                    found[other] = None
            if lock.most and len(beside) >= lock.most:
                found.update(dict.fromkeys(beside))
        return list(found)

    def release(self, op_id: str, everything: bool = True) -> list[str]:
        """Give back locks (all, or those not held to the end); returns the operations that may be able to run now."""
        held = self._held.get(op_id, {})
        waiting: dict[str, None] = {}
        for key, lock in list(held.items()):
            if lock.to_the_end and not everything:
                continue
            del held[key]
            queue = self._queues[key]
            del queue[op_id]
            waiting.update(dict.fromkeys(queue))
            if not queue:
                del self._queues[key]
        if not held:
            self._held.pop(op_id, None)
        return list(waiting)

    def last(self, key: str) -> str | None:
        """Return the operation that came last for a key."""
        return next(reversed(self._queues.get(key, {})), None)
