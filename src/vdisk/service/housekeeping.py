"""What is done by itself, pool by pool: what was kept long enough is removed, and checks run when they are due.

Everything that says what is due is read from the pools each time, so a failover or a stop of any length loses nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..engine.health import HealthBoard, Severity
from ..engine.ports import Cluster
from ..engine.workers import Workers
from ..model.errors import NotFound, VdiskError
from ..model.observed import Location
from ..model.shape import Shape, shape_from_dict
from .checks import Wish

if TYPE_CHECKING:
    from . import Services

_LOOK_AGAIN = 1.0
#: Code of the health check; what mutes it.
FINDINGS = "VDISK_CHECK_FINDINGS"


@dataclass(frozen=True)
class Settings:
    """Options, read anew each time. Seconds; a ``check_interval`` of 0 means none."""

    interval: Callable[[], float]
    check_interval: Callable[[], float]


class Housekeeper:
    """Looks after every pool and namespace in turn. One that hangs holds up no other."""

    def __init__(
        self,
        cluster: Cluster,
        readers: Workers,
        services: Services,
        settings: Settings,
        health: HealthBoard,
        log: logging.Logger,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._cluster = cluster
        self._readers = readers
        self._services = services
        self._settings = settings
        self._health = health
        self._findings: dict[tuple[str, str], int] = {}
        self._shapes: dict[tuple[str, str], Shape] = {}
        self._log = log
        self._clock = clock
        self._lock = threading.Lock()
        self._under_way: set[tuple[int, str]] = set()

    def run(self, stop: threading.Event) -> None:
        """Look after everything again and again until ``stop``; a changed interval acts at once."""
        last = time.monotonic()
        while not stop.wait(_LOOK_AGAIN):
            if time.monotonic() - last >= self._settings.interval():
                last = time.monotonic()
                self.round()

    def round(self) -> None:
        """Look after everything once, in the background."""
        try:
            places = list(self._places())
            self._forget_others({(where.pool, where.namespace) for where in places})
            for where in places:
                key = (where.pool_id, where.namespace)
                with self._lock:
                    if key in self._under_way:
                        continue
                    self._under_way.add(key)
                self._readers.submit(where.pool_id, partial(self._look_after, where))
        except VdiskError as error:
            self._log.info("housekeeping: %s", error.message)

    def _places(self) -> Iterator[Location]:
        for root in self._cluster.rbd_pools():
            yield root
            try:
                namespaces = self._cluster.namespaces(root.pool_id, root.pool)
            except NotFound:
                continue  # the pool was removed meanwhile
            for namespace in namespaces:
                yield Location(root.pool_id, root.pool, namespace)

    def _look_after(self, where: Location) -> None:
        try:
            self._services.trash.expire(where)
            self._check_if_due(where)
        except NotFound:
            pass  # the pool was removed meanwhile
        except VdiskError as error:
            self._log.info("housekeeping in %s: %s", where, error.message)
        finally:
            with self._lock:
                self._under_way.discard((where.pool_id, where.namespace))

    def told(self, where: Location, summary: Mapping[str, Any]) -> None:
        """Take to the cluster's health and to the figures what the summary of a location's last check says."""
        with self._lock:
            self._findings[where.pool, where.namespace] = int(summary.get("found", 0))
            self._shapes[where.pool, where.namespace] = shape_from_dict(summary.get("shape"))
        self._publish()

    def known(self) -> tuple[int, Shape]:
        """Return (findings left, shape) of all places together, as their last checks saw them."""
        with self._lock:
            return sum(self._findings.values()), sum(self._shapes.values(), Shape())

    def _forget_others(self, places: set[tuple[str, str]]) -> None:
        """Forget findings of pools and namespaces that are no more."""
        with self._lock:
            gone = set(self._findings) - places
            for place in gone:
                del self._findings[place]
                self._shapes.pop(place, None)
        if gone:
            self._publish()

    def _publish(self) -> None:
        with self._lock:
            left = sorted((place, found) for place, found in self._findings.items() if found)
        if not left:
            self._health.clear(FINDINGS)
            return
        specs = [(f"{pool}/{namespace}" if namespace else pool, found) for (pool, namespace), found in left]
        total = sum(found for _, found in left)
        self._health.set(
            FINDINGS,
            Severity.WARNING,
            f"checks of vdisk found {total} thing(s) to mend in {len(left)} place(s)",
            [f"{spec}: {found} finding(s); see 'ceph vdisk check {spec}'" for spec, found in specs],
        )

    def _check_if_due(self, where: Location) -> None:
        interval = self._settings.check_interval()
        last = self._services.checks.last(where)
        if last is not None and (where.pool, where.namespace) not in self._findings:
            self.told(where, last)  # what an earlier mgr found
        if interval <= 0:
            return
        if last is not None and self._clock() - float(last.get("finished_at", 0.0)) < interval:
            return
        self._services.checks.begin(where, Wish())
