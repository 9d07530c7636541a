"""Threads: a bounded pool that no group (a Ceph pool) can fill alone, and a timer."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable


class Workers:
    """Runs jobs on at most ``limit()`` daemon threads, taking groups in turn; one gets at most three quarters of them.

    Jobs of a group start in the order they came. Threads are made when needed and end when idle for a while, so a big
    limit costs nothing. They are daemons because a call into a hung pool can't be interrupted, and a mgr that is told
    to exit must not wait for it.
    """

    def __init__(self, name: str, limit: Callable[[], int], log: logging.Logger, idle_seconds: float = 30.0) -> None:
        self._name = name
        self._limit = limit
        self._log = log
        self._idle_seconds = idle_seconds
        lock = threading.RLock()
        # Two conditions of one lock: resting threads, and whoever waits for the last job to end.
        self._changed, self._still = threading.Condition(lock), threading.Condition(lock)
        self._jobs: OrderedDict[Hashable, deque[Callable[[], None]]] = OrderedDict()
        self._busy: Counter[Hashable] = Counter()
        self._given_up: set[Hashable] = set()
        self._threads: set[threading.Thread] = set()
        self._queued = 0
        self._idle = 0
        self._stopping = False
        self._numbers = itertools.count(1)

    def submit(self, group: Hashable, job: Callable[[], None]) -> None:
        """Queue a job. Ignored once :meth:`stop` was called."""
        with self._changed:
            if self._stopping:
                return
            self._jobs.setdefault(group, deque()).append(job)
            self._queued += 1
            self._call()

    def nudge(self) -> None:
        """Take note that the limit has risen: jobs that were queued may be done by more threads now."""
        with self._changed:
            self._call()

    def load(self) -> tuple[int, int]:
        """Return (jobs queued, jobs running)."""
        with self._changed:
            return self._queued, self._running

    def group_load(self, group: Hashable) -> int:
        """Return how many jobs of a group are queued or running."""
        with self._changed:
            return self._busy[group] + len(self._jobs.get(group, ()))

    def give_up(self, group: Hashable) -> None:
        """Count a group's running jobs, which will not end, no longer: others may have as many threads instead.

        One that ends after all is one too many, and goes.
        """
        with self._changed:
            if self._busy[group]:
                self._given_up.add(group)
                self._call()
                self._still.notify_all()

    def stop(self, timeout: float) -> bool:
        """Drop queued jobs and wait for running ones; False when some did not end in ``timeout`` seconds."""
        with self._changed:
            self._stopping = True
            self._jobs.clear()
            self._queued = 0
            self._changed.notify_all()
            return self._still.wait_for(lambda: not self._running, timeout)

    @property
    def _running(self) -> int:
        """How many jobs run of those that were not given up. Caller holds the lock."""
        return sum(self._busy.values()) - self._lost

    @property
    def _lost(self) -> int:
        """How many threads are in jobs that were given up. Caller holds the lock."""
        return sum(self._busy[group] for group in self._given_up)

    def _take(self) -> tuple[Hashable, Callable[[], None]] | None:
        """Take the next job of the first group that is below its share. Caller holds the lock."""
        share = max(1, self._limit() * 3 // 4)
        for group, jobs in self._jobs.items():
            if self._busy[group] < share:
                job = jobs.popleft()
                self._queued -= 1
                if jobs:
                    self._jobs.move_to_end(group)
                else:
                    del self._jobs[group]
                return group, job
        return None

    def _call(self) -> None:
        """Have one more thread look for a job: a resting one, or a new one where none rests. Caller holds the lock."""
        # A resting thread that was woken for an earlier job still counts as idle, so jobs are counted against them.
        if self._queued <= self._idle or len(self._threads) - self._lost >= max(1, self._limit()):
            self._changed.notify()
            return
        thread = threading.Thread(target=self._work, name=f"{self._name}-{next(self._numbers)}", daemon=True)
        self._threads.add(thread)
        thread.start()

    def _superfluous(self) -> bool:
        return self._stopping or len(self._threads) - self._lost > max(1, self._limit())

    def _work(self) -> None:
        with self._changed:
            while not self._superfluous():
                taken = self._take()
                if taken is not None:
                    if self._jobs:
                        self._call()  # the limit may have risen since the jobs were queued
                    self._do(*taken)
                elif not self._rest() and not self._jobs:
                    break
            self._threads.discard(threading.current_thread())
            if self._jobs:
                self._changed.notify()  # this one may have been woken for a job that it was one too many to take

    def _do(self, group: Hashable, job: Callable[[], None]) -> None:
        """Run a job without the lock. Caller holds the lock."""
        self._busy[group] += 1
        self._changed.release()
        try:
            job()
        except Exception:
            self._log.exception("job of %s failed", self._name)
        finally:
            self._changed.acquire()
            self._busy[group] -= 1
            if not self._busy[group]:
                del self._busy[group]
                self._given_up.discard(group)
            if self._jobs:
                # This thread takes the next job itself; another may be allowed now that its group was not before.
                self._changed.notify()
            if not self._running:
                self._still.notify_all()

    def _rest(self) -> bool:
        """Wait for something to do; False when nothing came. Caller holds the lock."""
        self._idle += 1
        woken = self._changed.wait(self._idle_seconds)
        self._idle -= 1
        return woken


class Timer:
    """Calls functions after a delay, on one thread; what they do must be short."""

    def __init__(self, name: str, log: logging.Logger) -> None:
        self._log = log
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def after(self, seconds: float, function: Callable[[], None]) -> None:
        """Call ``function`` in ``seconds``."""
        with self._changed:
            heapq.heappush(self._heap, (time.monotonic() + seconds, next(self._numbers), function))
            self._changed.notify()

    def stop(self) -> None:
        """Forget everything that is still to come."""
        with self._changed:
            self._stopping = True
            self._heap.clear()
            self._changed.notify()

    def _work(self) -> None:
        with self._changed:
            while not self._stopping:
                if not self._heap:
                    self._changed.wait()
                    continue
                delay = self._heap[0][0] - time.monotonic()
                if delay > 0:
                    self._changed.wait(delay)
                    continue
                function = heapq.heappop(self._heap)[2]
                self._changed.release()
                try:
                    function()
                except Exception:
                    self._log.exception("timer job failed")
                finally:
                    self._changed.acquire()
