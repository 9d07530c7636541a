"""A cluster to measure on, with clients, and the few things that every measurement does with them."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from bench.clients import Command, Fleet, Target, Timing
from bench.probe import usage
from harness.cluster import Cluster
from harness.config import Conf
from harness.wait import wait_for

POOL = "rbd"
GIB = 1 << 30
#: Pace of the monitors: their defaults, and as fast as they can be told to.
INTERVALS: Mapping[str, Conf] = {"default": {}, "0.01": {"paxos_propose_interval": 0.01}}


@dataclass(frozen=True)
class Row:
    """One figure of the table. ``subject`` is vdisk, bare (librbd), cli or rbd_support; times in milliseconds."""

    measure: str
    interval: str
    subject: str
    clients: int = 1
    count: int = 0
    median_ms: float | None = None
    p95_ms: float | None = None
    per_second: float | None = None
    osd_ops: float | None = None
    mgr_cpu_ms: float | None = None
    value: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that say something."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    singles: int
    slow_singles: int
    per_client: int
    rounds: int
    clients: tuple[int, ...]
    queue_sample: int
    journal: tuple[int, ...]
    idle_seconds: float
    huge: int


FULL = Sizes(20, 6, 3, 2, (1, 8, 32), 12, (100, 1_000, 10_000, 100_000), 20, 4 << 40)
QUICK = Sizes(3, 1, 1, 1, (1, 4), 2, (10, 1_000), 2, 64 << 30)


class Stage:
    """A running cluster of one release and interval. ``rows`` is what was measured on it so far."""

    def __init__(self, cluster: Cluster, interval: str, sizes: Sizes) -> None:
        self.cluster = cluster
        self.interval = interval
        self.sizes = sizes
        self.rows: list[Row] = []
        self.fleet = Fleet(Target(cluster.conf_path, cluster.layout.keyring("client.admin")), max(sizes.clients))
        self._numbers = itertools.count(1)

    def close(self) -> None:
        """End the clients."""
        self.fleet.close()

    def name(self, stem: str) -> str:
        """Return a name that was not used before."""
        return f"{stem}-{next(self._numbers)}"

    def vdisk(self, words: str, **arguments: Any) -> Any:
        """Run a vdisk command that has to work and return its answer."""
        return self.fleet.one(Command({"prefix": f"vdisk {words}", **arguments})).answer

    def volumes(self, count: int, size: int = GIB, pool: str = POOL) -> list[dict[str, Any]]:
        """Make volumes."""
        names = [self.name("pvc") for _ in range(count)]
        return [self.vdisk("volume create", pool_spec=pool, name=name, size=str(size)) for name in names]

    def drain(self, timeout: float = 240) -> None:
        """Wait until vdisk has nothing under way and rbd_support has no task."""

        def idle() -> bool:
            figures = self.vdisk("status")
            if figures["queued"] or figures["running"] or figures["waiting"]:
                return False
            return not tasks(self.cluster)

        wait_for(idle, timeout, "nothing is under way", interval=0.05)

    def add(
        self,
        measure: str,
        subject: str,
        timings: Sequence[Timing],
        *,
        mark: str = "",
        cost: Mapping[str, float] | None = None,
        **more: Any,
    ) -> None:
        """Record the latencies of jobs, or of the moment ``mark`` in them."""
        values = sorted((timing.marks[mark] if mark else timing.seconds) * 1000 for timing in timings)
        row = Row(
            measure,
            self.interval,
            subject,
            count=len(values),
            median_ms=statistics.median(values),
            p95_ms=values[min(len(values) - 1, int(len(values) * 0.95))],
            **{**(cost or {}), **more},
        )
        self.rows.append(row)

    def add_value(self, measure: str, subject: str, value: float, **more: Any) -> None:
        """Record a figure of another kind."""
        self.rows.append(Row(measure, self.interval, subject, value=value, **more))

    @contextmanager
    def counted(self, count: int) -> Iterator[dict[str, float]]:
        """Count OSD operations and CPU of the mgr for ``count`` things done in the block, less what idling takes."""
        result: dict[str, float] = {}
        self.drain()
        started, before = time.monotonic(), usage(self.cluster)
        time.sleep(1.0)  # what runs when nothing is asked for
        idle = usage(self.cluster)
        idle_seconds = time.monotonic() - started
        started = time.monotonic()
        yield result
        self.drain()
        seconds, after = time.monotonic() - started, usage(self.cluster)
        share = seconds / idle_seconds
        result["osd_ops"] = (after.osd_ops - idle.osd_ops - (idle.osd_ops - before.osd_ops) * share) / count
        result["mgr_cpu_ms"] = (after.mgr_cpu - idle.mgr_cpu - (idle.mgr_cpu - before.mgr_cpu) * share) * 1000 / count


def tasks(cluster: Cluster) -> list[dict[str, Any]]:
    """Return rbd_support's tasks."""
    number, out, status = cluster.mgr_command({"prefix": "rbd task list", "format": "json"})
    if number:
        raise RuntimeError(f"rbd task list: {number} {status}")
    found: list[dict[str, Any]] = json.loads(out or "[]")
    return found


@contextmanager
def staged(release: str, interval: str, sizes: Sizes) -> Iterator[Stage]:
    """Start a cluster with vdisk, a pool and clients; stop all of it afterwards."""
    # Logs as an operator has them: the harness' own level writes a line for each command.
    conf = {**INTERVALS[interval], "mgr:debug_mgr": "1/5"}
    with Cluster(release, conf=conf) as cluster:
        # A check that a pool's age makes due would be measured along with everything else.
        cluster.ceph("config", "set", "mgr", "mgr/vdisk/check_interval", "0")
        cluster.create_pool(POOL, pg_num=32)
        stage = Stage(cluster, interval, sizes)
        try:
            yield stage
        finally:
            stage.close()
