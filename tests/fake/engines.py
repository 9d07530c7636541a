"""Engines and services on a fake cluster, for tests with real threads: started, watched, stopped."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from vdisk.engine.clock import Clock
from vdisk.engine.engine import Engine, Settings
from vdisk.engine.guards import GuardSettings
from vdisk.engine.health import HealthBoard
from vdisk.engine.operation import Operation
from vdisk.engine.reaper import ReaperSettings
from vdisk.engine.runs import Settings as RunSettings
from vdisk.engine.scheduler import Scheduler
from vdisk.engine.workers import Timer, Workers
from vdisk.model.handles import HandleFormat
from vdisk.model.layout import SNAPSHOT_FEATURES
from vdisk.model.shape import Shape
from vdisk.service import Checks, Groups, Lineage, Schedules, Service, Services, Telemetry, Trash
from vdisk.service import Settings as ServiceSettings
from vdisk.service.checks import Settings as CheckSettings

from .cluster import FakeCluster, Session

LOG = logging.getLogger("vdisk.test")
FSID = "4a9e463a-4853-4237-a5c5-9ae9d25bacda"
#: Seconds after which a test that waits for something gives up; nothing takes that long unless it is broken, not even
#: on a machine that has much else to do.
PATIENCE = 60.0


class Mgr:
    """One mgr with the module at work: a session of its own on the fake, an engine, and a service."""

    def __init__(
        self,
        fake: FakeCluster,
        workers: int = 16,
        queue_limit: int = 1000,
        reaper: ReaperSettings = ReaperSettings(window=lambda: 0),  # noqa: B008
        guards: GuardSettings = GuardSettings(),  # noqa: B008
        **settings: Any,
    ) -> None:
        self.fake = fake
        self.session = Session(fake)
        self.engine = Engine(self.session, Settings(lambda: workers, lambda: queue_limit, reaper, guards), LOG)
        self.readers = Workers("reader", lambda: 16, LOG)
        options: dict[str, Any] = {
            "cluster_id": lambda: FSID,
            "known_cluster_ids": lambda: [FSID],
            "handle_format": lambda: HandleFormat.CSTOR,
            "snapshot_features": lambda: SNAPSHOT_FEATURES,
            "read_timeout": lambda: PATIENCE,
            "give_way": lambda: False,
            "check_grace": 0.0,
            **settings,
        }
        known = {field.name for field in dataclasses.fields(ServiceSettings)}
        chosen = ServiceSettings(**{name: value for name, value in options.items() if name in known})
        self.service = Service(self.session, self.engine, self.readers, chosen)
        quick = CheckSettings(grace=lambda: options["check_grace"], settle=lambda: 0.0, give_way=lambda: False)
        clock = lambda: fake.now  # noqa: E731
        self.checks = Checks(self.session, self.engine, self.readers, quick, LOG, clock)
        self.trash = Trash(self.session, self.engine, self.service, LOG, clock)
        self.board = HealthBoard(lambda checks: None)
        self.scheduler = Scheduler(
            self.session,
            self.engine,
            RunSettings(lambda: SNAPSHOT_FEATURES, lambda: int(options.get("keep_for", 0))),
            self.board,
            LOG,
            Clock(clock, 0.002),
        )
        self.known = (0, Shape())
        self.services = Services(
            self.service,
            self.checks,
            self.trash,
            Lineage(self.session, self.engine, self.service),
            Schedules(self.session, self.scheduler, self.service),
            Groups(self.session, self.service),
            Telemetry(self.engine, self.session, lambda: self.known),
        )

    def until(self, condition: Callable[[], bool], what: str = "it", hurry: bool = False) -> None:
        """Wait until a condition on the engine's operations holds; not every change of it is announced.

        With ``hurry`` what the engine puts off, such as its next try, comes at once.
        """
        end = time.monotonic() + PATIENCE
        with self.engine._changed:
            while not condition():
                assert time.monotonic() < end, f"{what} did not happen; {self._under_way()}"
                if hurry:
                    _hurry(self.engine._timer)
                self.engine._changed.wait(0.002)

    def _under_way(self) -> str:
        """Tell what moves and what does not. Caller holds the engine's lock."""
        shown = [
            f"{op.to_dict(details=True)}, behind {self.engine._locks.blockers(op.id)}"
            for op in self.engine._book.live.values()
        ]
        return f"workers {self.engine._workers.load()}, " + ("\n".join(shown) or "no operations")

    def ended(self, *operations: Operation) -> None:
        """Wait until operations ended."""
        self.until(lambda: all(op.state.final for op in operations), f"the end of {[op.id for op in operations]}")

    def answered(self, *operations: Operation) -> None:
        """Wait until operations answered."""
        self.until(lambda: all(op.answered for op in operations), f"the answer of {[op.id for op in operations]}")

    def quiet(self) -> None:
        """Wait until nothing is under way but what waits for something outside."""
        self.until(
            lambda: all(op.state.value == "waiting" for op in self.engine._book.live.values()) and self.idle(),
            "quiet",
        )

    def idle(self) -> bool:
        """Tell whether no thread of the engine has anything to do."""
        pools = (self.engine._workers, self.engine._background, self.engine._reapers)
        return all(pool.load() == (0, 0) for pool in pools)

    def stop(self) -> None:
        """Stop the module as the mgr does."""
        self.checks.stop()
        self.scheduler.stop()
        self.engine.stop(PATIENCE)
        self.readers.stop(PATIENCE)

    def kill(self) -> None:
        """Let the mgr die: nothing that it still tries reaches the cluster."""
        self.session.kill()
        self.stop()


def _hurry(timer: Timer) -> None:
    """Have everything that a timer is to call come due."""
    with timer._changed:
        timer._heap[:] = [(0.0, number, function) for _, number, function in sorted(timer._heap)]
        timer._changed.notify()


class Gate:
    """A hook that holds calls back at a moment until it is opened."""

    def __init__(self, method: str, moment: str = "before", count: int = 1) -> None:
        self.wanted = (method, moment)
        self.reached = threading.Event()
        self.opened = threading.Event()
        self._left = count
        self._lock = threading.Lock()

    def __call__(self, method: str, moment: str) -> None:
        """Hold the call back if it is one of those meant."""
        if (method, moment) != self.wanted:
            return
        with self._lock:
            if self._left <= 0:
                return
            self._left -= 1
        self.reached.set()
        assert self.opened.wait(PATIENCE)

    def open(self) -> None:
        """Let everything pass from now on."""
        with self._lock:
            self._left = 0
        self.opened.set()

    def reach(self) -> None:
        """Wait until a call is held back."""
        assert self.reached.wait(PATIENCE), f"{self.wanted} was not reached"


class Gates:
    """Several hooks in one."""

    def __init__(self, *gates: Callable[[str, str], None]) -> None:
        self.gates = gates

    def __call__(self, method: str, moment: str) -> None:
        """Pass every gate."""
        for gate in self.gates:
            gate(method, moment)
