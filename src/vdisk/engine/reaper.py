"""The reaper: who removes a trashed image, and how fast.

rbd_support's task queue survives everything and shows what it does in ``ceph rbd task list``, but it does one thing at
a time, and each removal of a snapshot waits for a monitor round there. So at most a *window* of images is given to it,
and vdisk removes the rest itself, many side by side. The operation, and with it the intent, stays until the image is
gone, whoever removes it.

What rbd_support was given is its own: it calls a task *failed* in ``ceph progress`` when it is cancelled or finds no
image, so vdisk takes back only a task that did fail. That an image has a task is read from where rbd_support
keeps them, so that one from before a crash, or one that an administrator added, counts as well.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..model.errors import NotFound, NotReady, VdiskError
from ..model.observed import Location
from .lanes import Lanes
from .ports import Effects
from .waiting import Key, Waiting, turn_of

#: Seconds for which a look at rbd_support's tasks holds, between two looks at those that are waited for, and after
#: which a task that is still there is asked whether it failed.
_FRESH_SECONDS = 1.0
_LOOK_SECONDS = 0.5
_FAILED_SECONDS = 10.0
#: Objects of an image that rbd_support is still given. It has librbd call Python for every single one, whether or not
#: it exists: half a minute for 4 TiB, in which nothing else is removed there. vdisk's own removal makes no such calls.
_MAX_OBJECTS = 16_384
#: Span over which the rate is taken, in seconds.
_RATE_SPAN = 60.0


@dataclass(frozen=True)
class ReaperSettings:
    """Options, read anew each time. ``threads`` 0 leaves every image to rbd_support, ``rate`` 0.0 is no limit."""

    threads: Callable[[], int] = lambda: 64
    window: Callable[[], int] = lambda: 1
    rate: Callable[[], float] = lambda: 0.0


@dataclass
class _Given:
    """An image that rbd_support has a task for."""

    where: Location
    task: str
    since: float


class Reaper:
    """Removes trashed images. ``gone`` is called with the key of each image that rbd_support has removed."""

    def __init__(
        self,
        effects: Effects,
        settings: ReaperSettings,
        log: logging.Logger,
        gone: Callable[[Key], None] = lambda key: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._effects = effects
        self._settings = settings
        self._log = log
        self._gone = gone
        self._clock = clock
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._turnstile = threading.Lock()
        self._stopping = False
        self._given: dict[Key, _Given] = {}
        self._seen: dict[tuple[int, str], tuple[float, Mapping[str, str]]] = {}
        self._changes = 0
        self._taken_back: set[Key] = set()
        self._lanes = Lanes(clock)
        self._lane_of: dict[Key, Key] = {}
        self._last_start = float("-inf")
        self._asked = 0.0
        self._busy = 0
        self._ended: deque[float] = deque()
        self.removed = 0
        """Images removed since the module was loaded."""

    def remove(self, where: Location, image_id: str) -> Waiting | None:
        """Remove a trashed image, or see to it that rbd_support does and return what has to be waited for."""
        key = Key(where.pool_id, where.namespace, image_id)
        lane, objects = self._needs(where, key)
        if lane is not None and not self._lanes.enter(lane, key):
            return Waiting([f"its turn: image id {lane.image_id} loses another snapshot just now"], {turn_of(key)})
        waiting = None
        try:
            waiting = self._given_to_rbd_support(where, key, objects)
            if waiting is None:
                self._remove(where, key)
            return waiting
        finally:
            if waiting is None:
                self._leave(key)

    def _given_to_rbd_support(self, where: Location, key: Key, objects: int) -> Waiting | None:
        """See to it that rbd_support removes the image; None when that is up to vdisk, or needless."""
        if not self._effects.may_queue(where, key.image_id):
            return None
        task = self._tasks(where).get(key.image_id)
        huge = objects > _MAX_OBJECTS and self._settings.threads() > 0
        if task is None and not huge and self._takes_place(key):
            task = self._give(where, key)
        if task is None:
            return None
        return Waiting([f"{where}/{key.image_id} (task {task} of rbd_support)"], {key})

    def _remove(self, where: Location, key: Key) -> None:
        self._throttle()
        with self._lock:
            self._busy += 1
        try:
            self._effects.remove_trashed(where, key.image_id)
        finally:
            with self._lock:
                self._busy -= 1
        self._count()

    def _needs(self, where: Location, key: Key) -> tuple[Key | None, int]:
        """Return the image whose lock the removal takes besides its own, and how many objects it has to look at."""
        locked, objects = self._effects.removal_needs(where, key.image_id)
        lane = None if locked is None else Key(*locked)
        with self._lock:
            if lane is not None:
                self._lane_of[key] = lane
        return lane, objects

    def _leave(self, key: Key) -> None:
        """Let the next one have its turn."""
        with self._lock:
            lane = self._lane_of.pop(key, None)
        following = None if lane is None else self._lanes.leave(lane, key)
        if following is not None:
            self._gone(turn_of(following))

    def look(self) -> None:
        """Look which of the images that rbd_support has are gone, and take back those whose task failed."""
        now = self._clock()
        with self._lock:
            given = {key: item for key, item in self._given.items() if item.task}
            ask = now - self._asked > _FAILED_SECONDS
        spaces = {(item.where.pool_id, item.where.namespace): item.where for item in given.values()}
        tasks = {place: self._tasks(where, fresh=True) for place, where in spaces.items()}
        old = False
        for key, item in given.items():
            if key.image_id not in tasks[key.pool_id, key.namespace]:
                self._drop(key)
                self._count()
                self._gone(key)
            else:
                old = old or now - item.since > _FAILED_SECONDS
        if old and ask:
            self._asked = now
            self._take_back_failed(given)

    @property
    def look_after(self) -> float | None:
        """Seconds after which to look again, None when nothing is waited for."""
        with self._lock:
            return _LOOK_SECONDS if self._given else None

    def figures(self) -> dict[str, float]:
        """Return the reaper's part of ``vdisk status``."""
        with self._lock:
            self._forget_old()
            return {
                "threads_busy": self._busy,
                "given_to_rbd_support": len(self._given),
                "removed": self.removed,
                "removed_per_second": round(len(self._ended) / _RATE_SPAN, 3),
            }

    def stop(self) -> None:
        """Let nobody wait for its turn any more."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def settings_changed(self) -> None:
        """Have those who wait look at the settings again, which may hold them up no longer, or not as long."""
        with self._changed:
            self._changed.notify_all()

    def _drop(self, key: Key) -> None:
        """Free a place in the window."""
        with self._changed:
            self._given.pop(key, None)
            self._changed.notify_all()
        self._leave(key)

    def _takes_place(self, key: Key) -> bool:
        """Take a place in the window, unless it is full or rbd_support had the image already.

        Where everything is left to rbd_support this waits for a place; its thread has nothing else to do.
        """
        while True:
            alone = self._settings.threads() == 0
            with self._changed:
                if self._stopping:
                    raise NotReady("vdisk is stopping on this mgr")
                if key in self._taken_back and not alone:
                    return False
                if len(self._given) < max(self._settings.window(), 1 if alone else 0):
                    self._given[key] = _Given(Location(key.pool_id, "", key.namespace), "", self._clock())
                    return True
                if not alone:
                    return False
                self._changed.wait(_LOOK_SECONDS)
            self.look()

    def _give(self, where: Location, key: Key) -> str | None:
        """Add the task; None when the image is gone, or when rbd_support does not take it and vdisk can do without."""
        task = None
        try:
            task = self._effects.queue_removal(where, key.image_id)
        except VdiskError as error:
            if self._settings.threads() == 0:
                raise
            self._log.info(
                "rbd_support does not take %s/%s (%s); vdisk removes it itself", where, key.image_id, error.message
            )
        finally:
            with self._changed:
                self._overlook(where.pool_id, where.namespace)
                if task is None:
                    self._given.pop(key, None)
                else:
                    self._given[key] = _Given(where, task, self._clock())
                self._changed.notify_all()
        return task

    def _tasks(self, where: Location, fresh: bool = False) -> Mapping[str, str]:
        """Return rbd_support's removals in a pool and namespace: image id → task id."""
        place = (where.pool_id, where.namespace)
        with self._lock:
            at, found = self._seen.get(place, (0.0, {}))
            if not fresh and place in self._seen and self._clock() - at < _FRESH_SECONDS:
                return found
            changes = self._changes
        try:
            found = self._effects.tasks_of(where)
        except NotFound:
            found = {}  # the pool was removed
        with self._lock:
            if changes == self._changes:
                self._seen[place] = self._clock(), found
            for image_id, task in found.items():
                # Those from before a failover, and other people's, take places in the window as well.
                self._given.setdefault(Key(*place, image_id), _Given(where, task, self._clock()))
        return found

    def _overlook(self, pool_id: int, namespace: str) -> None:
        """Forget what was seen, also by those who are just looking: it was changed. Caller holds the lock."""
        self._changes += 1
        self._seen.pop((pool_id, namespace), None)

    def _take_back_failed(self, given: Mapping[Key, _Given]) -> None:
        """Cancel tasks that rbd_support would try again for ever, so that vdisk's own rules hold for their images."""
        try:
            failed = self._effects.failed_tasks()
            for key, item in given.items():
                if item.task in failed:
                    self._log.warning(
                        "task %s of rbd_support for %s/%s failed (%s); vdisk removes the image itself",
                        item.task, item.where, key.image_id, failed[item.task],
                    )  # fmt: skip
                    self._effects.cancel_task(item.task)
                    with self._lock:
                        self._overlook(key.pool_id, key.namespace)
                        self._taken_back.add(key)
                    self._drop(key)
                    self._gone(key)
        except VdiskError as error:
            self._log.info("looking at the tasks of rbd_support failed: %s", error.message)

    def _throttle(self) -> None:
        """Wait for the next start that the rate allows; only the first in the row does, the others wait for it."""
        with self._turnstile, self._changed:
            while not self._stopping:
                rate, now = self._settings.rate(), self._clock()
                left = self._last_start + 1.0 / rate - now if rate > 0 else 0.0
                if left <= 0:
                    self._last_start = now
                    return
                self._changed.wait(min(left, threading.TIMEOUT_MAX))
            raise NotReady("vdisk is stopping on this mgr")

    def _count(self) -> None:
        with self._lock:
            self.removed += 1
            self._ended.append(self._clock())
            self._forget_old()

    def _forget_old(self) -> None:
        """Caller holds the lock."""
        while self._ended and self._ended[0] < self._clock() - _RATE_SPAN:
            self._ended.popleft()
